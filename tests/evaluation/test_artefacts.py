"""What an evaluation writes is read back as it was; what is missing is not measured, what is broken is said."""

import dataclasses

import numpy as np
import pytest
from evaluation_fakes import CHUNK, SPACE, ObedientPolicy, PerfectModel, SquareEnvironment, windows

from wam.contracts import WamError
from wam.evaluation import artefacts
from wam.evaluation.closed_loop import evaluate_policy
from wam.evaluation.pictures import film_strips, probe_actions, video_table, what_if
from wam.evaluation.runners import GateSettings, evaluate_gates

PLAY, EXPERT = windows(8, play=True), windows(8, play=False)


def same(a, b):
    for field in dataclasses.fields(a):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


def test_every_file_is_read_back_as_it_was_written(tmp_path):
    futures = {}
    settings = GateSettings(steps=(1,))
    gates = evaluate_gates(PerfectModel(), play=PLAY, expert=EXPERT, space=SPACE, settings=settings, futures=futures)
    result = evaluate_policy(
        ObedientPolicy, ["square/away"], seeds=[1, 2], record=1, make_environment=SquareEnvironment
    )
    strips = film_strips(PerfectModel(), PLAY[:2], kind="forward", steps=1)
    strips = strips + film_strips(PerfectModel(), EXPERT[:1], kind="imagine", steps=3)
    pictures = what_if(PerfectModel(), PLAY, SPACE, steps=1)
    rows = video_table(futures, play=PLAY, expert=EXPERT)

    artefacts.save_gates(tmp_path, gates)
    artefacts.save_success(tmp_path, {"policy": result})
    artefacts.save_film_strips(tmp_path, strips)
    artefacts.save_what_if(tmp_path, pictures)
    artefacts.save_video_table(tmp_path, rows)
    artefacts.save_rollouts(tmp_path, result.rollouts)

    read = artefacts.load_gates(tmp_path)
    assert [(g.name, g.value, g.passed, g.steps) for g in read] == [(g.name, g.value, g.passed, g.steps) for g in gates]
    assert artefacts.load_success(tmp_path)["policy"] == result.to_dict()
    same(artefacts.load_film_strips(tmp_path), strips)
    same(artefacts.load_what_if(tmp_path), pictures)
    assert artefacts.load_video_table(tmp_path)[0]["psnr"] == rows[0]["psnr"]
    [rollout] = artefacts.load_rollouts(tmp_path)
    assert rollout.episode == result.rollouts[0].episode
    np.testing.assert_array_equal(rollout.frames, result.rollouts[0].frames)


def test_what_was_not_measured_is_none_and_what_is_broken_is_said(tmp_path):
    assert artefacts.load_gates(tmp_path) is None
    assert artefacts.load_rollouts(tmp_path) is None
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "gates.json").write_text("{")
    (tmp_path / "evaluation" / "what_if.npz").write_bytes(b"nothing")
    with pytest.raises(WamError, match=r"gates\.json"):
        artefacts.load_gates(tmp_path)
    with pytest.raises(WamError, match=r"what_if\.npz"):
        artefacts.load_what_if(tmp_path)


def test_pushes_are_as_strong_as_the_data_and_move_only_what_they_say():
    probes = probe_actions(PLAY, SPACE)
    assert list(probes) == ["still", "+x", "−x", "+y", "−y", "+z", "−z"]
    assert probes["still"].shape == (CHUNK, 4)
    strongest = PLAY.action[:, 0, 0].abs().max()
    assert 0 < probes["+x"][0, 0] <= strongest
    assert (probes["+x"][:, 1:3] == 0).all()
    np.testing.assert_allclose(probes["+x"][:, 0], -probes["−x"][:, 0])


def test_the_same_start_differs_only_by_the_action():
    pictures = what_if(PerfectModel(), PLAY, SPACE, steps=1)
    assert pictures.imagined.shape == (4, 7, 2, 2, 24, 24, 3)
    later = dict(zip(pictures.names, pictures.imagined[0, :, 0, -1].astype(int), strict=True))
    assert (later["still"] == pictures.present[0, 0]).all()
    centre = {name: np.argwhere(image[..., 0] > 100).mean(0) for name, image in later.items()}
    assert centre["+x"][1] > centre["still"][1] > centre["−x"][1]
    assert centre["+y"][0] > centre["still"][0] > centre["−y"][0]
    assert pictures.motion[pictures.names.index("+y")].argmax() == 1


def test_the_table_has_copying_beside_every_prediction():
    futures = {}
    evaluate_gates(
        PerfectModel(), play=PLAY, expert=EXPERT, space=SPACE, settings=GateSettings(steps=(1, 3)), futures=futures
    )
    mask = PLAY.future_mask.clone()
    mask[0, -1] = False
    rows = video_table(futures, play=PLAY.replace(future_mask=mask), expert=EXPERT)
    assert [(r["data"], r["steps"], r["n"]) for r in rows] == [
        ("play", 0, 7),
        *(("play", s, 7) for s in (1, 3, 1, 3)),
        ("expert", 0, 8),
        ("expert", 1, 8),
        ("expert", 3, 8),
    ]
    copying, forward, _, shuffled = rows[:4]
    assert forward["psnr"] > max(copying["psnr"], shuffled["psnr"])
    assert forward["ssim"] > shuffled["ssim"]
    assert forward["frechet_randconv"] < copying["frechet_randconv"]
