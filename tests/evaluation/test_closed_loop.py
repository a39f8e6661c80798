"""Closed loop: receding horizon, batches for the policy, and episodes that survive a kill."""

import dataclasses
import json
import multiprocessing
from functools import partial

import numpy as np
import pytest
from evaluation_fakes import (
    CHUNK,
    DeafPolicy,
    ObedientPolicy,
    SquareEnvironment,
    StillPolicy,
    dying_factory,
)

from wam.contracts import WamError
from wam.evaluation.closed_loop import across_seeds, evaluate_policy, evaluate_wrong_text
from wam.evaluation.rollout import LoopSettings

NAMES = ["square/middle", "square/away"]
SEEDS = list(range(100, 105))
SENTENCES = {name: f"push the square {name.split('/')[1]}" for name in NAMES}
run = partial(evaluate_policy, make_environment=SquareEnvironment)


def test_an_obedient_policy_succeeds_everywhere_and_results_keep_their_order():
    result = run(ObedientPolicy, NAMES, seeds=SEEDS)
    assert [(e.environment, e.seed) for e in result.episodes] == [(n, s) for s in SEEDS for n in NAMES]
    assert result.figures() == {"success_mean": 1.0, "success_worst": 1.0}
    assert result.tasks["square/away"].n == 5
    assert result.mean.low > result.tasks["square/away"].low


def test_the_policy_sees_all_environments_as_one_batch():
    policy = ObedientPolicy()
    run(lambda: policy, NAMES, seeds=SEEDS, settings=LoopSettings(slots=10))
    assert policy.batches[0] == 10


def test_slots_and_processes_do_not_change_the_result():
    alone = run(ObedientPolicy, NAMES, seeds=SEEDS, settings=LoopSettings(slots=1))
    assert run(ObedientPolicy, NAMES, seeds=SEEDS, settings=LoopSettings(slots=3)).episodes == alone.episodes
    assert run(ObedientPolicy, NAMES, seeds=SEEDS, processes=2).episodes == alone.episodes


def test_only_the_first_actions_of_a_chunk_are_executed():
    class LastActionsRunAway(ObedientPolicy):
        def act(self, observations):
            chunk = super().act(observations)
            chunk[:, 1:] *= -1
            return chunk

    names = ["square/middle"]
    assert run(LastActionsRunAway, names, seeds=SEEDS, settings=LoopSettings(execute=1)).worst == 1
    assert run(LastActionsRunAway, names, seeds=SEEDS, settings=LoopSettings(execute=CHUNK)).worst == 0
    with pytest.raises(WamError, match="at most the chunk"):
        run(ObedientPolicy, names, seeds=SEEDS, settings=LoopSettings(execute=CHUNK + 1))


def test_unrecorded_episodes_render_only_where_the_policy_looks():
    made = []

    def make(name):
        made.append(SquareEnvironment(name))
        return made[-1]

    settings = LoopSettings(slots=1, max_steps=20)
    run(StillPolicy, ["square/away"], seeds=[1], settings=settings, make_environment=make)
    assert made[0].renders == 1 + 20 // CHUNK


def test_recorded_rollouts_hold_every_frame_and_failures_the_planning_frames():
    result = run(StillPolicy, ["square/away"], seeds=SEEDS, record=2, record_failures=1)
    every = [r for r in result.rollouts if r.stride == 1]
    assert [r.episode.seed for r in every] == SEEDS[:2]
    assert every[0].frames.shape == (21, 2, 24, 24, 3)
    assert [r.frames.shape[0] for r in result.rollouts if r.stride == CHUNK] == [6]


def test_a_killed_evaluation_goes_on_where_it_stopped(tmp_path):
    log = tmp_path / "episodes.jsonl"
    settings = LoopSettings(slots=2)
    victim = multiprocessing.get_context("spawn").Process(
        target=evaluate_policy,
        args=(dying_factory, NAMES),
        kwargs={
            "seeds": SEEDS,
            "settings": settings,
            "resume": log,
            "make_environment": SquareEnvironment,
            "record": 1,
        },
    )
    victim.start()
    victim.join()
    assert victim.exitcode == -9
    before = log.read_text().splitlines()
    assert 1 < len(before) < 1 + len(NAMES) * len(SEEDS)
    with log.open("a") as file:
        file.write('{"environment": "square/aw')  # the line a kill tore

    seen = []
    result = run(
        ObedientPolicy,
        NAMES,
        seeds=SEEDS,
        settings=settings,
        resume=log,
        record=1,
        progress=lambda done, total, episode: seen.append((done, total)),
    )
    assert log.read_text().splitlines()[: len(before)] == before
    assert seen[0] == (len(before), 10)
    assert seen[-1] == (10, 10)
    assert result.episodes == run(ObedientPolicy, NAMES, seeds=SEEDS).episodes
    assert len(result.rollouts) == 2  # the killed run's frames are there too
    again = run(StillPolicy, NAMES, seeds=SEEDS, settings=settings, resume=log)
    assert again.episodes == result.episodes  # nothing left to run


def test_a_process_that_dies_is_one_clear_sentence(tmp_path):
    log = tmp_path / "episodes.jsonl"
    with pytest.raises(WamError, match=r"died with exit code -9.*finished episodes are kept"):
        run(dying_factory, NAMES, seeds=SEEDS, processes=2, settings=LoopSettings(slots=1), resume=log)


def test_a_log_of_something_else_is_refused(tmp_path):
    log = tmp_path / "episodes.jsonl"
    run(ObedientPolicy, NAMES, seeds=[1], resume=log, identity={"checkpoint": "a"})
    with pytest.raises(WamError, match="checkpoint 'a' instead of 'b'"):
        run(ObedientPolicy, NAMES, seeds=[1], resume=log, identity={"checkpoint": "b"})
    log.write_text(log.read_text() + "{}\n")
    with pytest.raises(WamError, match="line 4"):
        run(ObedientPolicy, NAMES, seeds=[1], resume=log, identity={"checkpoint": "a"})


def test_wrong_sentences_find_out_a_policy_that_does_not_listen():
    measure = partial(evaluate_wrong_text, pairs=[tuple(NAMES)], sentences=SENTENCES, seeds=SEEDS)
    gate, result = measure(ObedientPolicy, make_environment=SquareEnvironment)
    assert gate.passed
    assert gate.n == 10
    assert {e.instruction for e in result.episodes if e.environment == "square/away"} == {"push the square middle"}
    gate, _ = measure(DeafPolicy, make_environment=SquareEnvironment)
    assert gate.value == 0.5
    assert not gate.passed


def test_several_sentences_are_told_in_turns():
    told = run(ObedientPolicy, NAMES[:1], seeds=SEEDS, instructions={NAMES[0]: ["to the middle", "middle"]})
    assert [e.instruction for e in told.episodes] == ["to the middle", "middle"] * 2 + ["to the middle"]


def test_actions_are_checked_and_clipped():
    class Bad(ObedientPolicy):
        def act(self, observations):
            return super().act(observations) * np.nan

    with pytest.raises(WamError, match=r"finite actions.*square/middle, start 100, step 0"):
        run(Bad, NAMES[:1], seeds=SEEDS)

    class Flat(ObedientPolicy):
        def act(self, observations):
            return super().act(observations)[:, 0]

    with pytest.raises(WamError, match="shape"):
        run(Flat, NAMES[:1], seeds=SEEDS)

    class Strong(ObedientPolicy):  # the environment asserts that it never gets more than its limits
        def act(self, observations):
            return super().act(observations) * 5

    assert run(Strong, ["square/away"], seeds=SEEDS).worst == 1


def test_a_full_disk_is_one_clear_sentence(tmp_path):
    with pytest.raises(WamError, match="append an episode"):
        run(ObedientPolicy, NAMES, seeds=SEEDS, resume="/dev/full")


def test_seeds_of_training_give_a_spread():
    good, bad = (run(policy, ["square/middle"], seeds=SEEDS) for policy in (ObedientPolicy, StillPolicy))
    spread = across_seeds([good, bad, good])["mean"]
    assert spread.value == pytest.approx(2 / 3)
    assert spread.low < 0.34
    other = dataclasses.replace(good, episodes=run(ObedientPolicy, NAMES, seeds=[1]).episodes)
    with pytest.raises(WamError, match="same tasks"):
        across_seeds([good, other])


def test_what_is_written_is_plain_json():
    result = run(ObedientPolicy, NAMES, seeds=SEEDS)
    written = json.loads(json.dumps(result.to_dict()))
    assert written["tasks"][0]["successes"] == 5
    assert written["starts"] == SEEDS
