"""The plugin in the real package lerobot: what wam trained loads there and does what it does here."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("lerobot", reason="lerobot has a Python of its own: make test-lerobot")
pytest.importorskip("lerobot_policy_wam", reason="the plugin is installed beside lerobot: make test-lerobot")

from lerobot.configs import PreTrainedConfig
from lerobot.envs.utils import preprocess_observation
from lerobot.policies import make_pre_post_processors
from lerobot.policies.factory import get_policy_class
from lerobot.utils.import_utils import register_third_party_plugins
from lerobot_policy_wam.configuration_wam import WamConfig
from lerobot_policy_wam.modeling_wam import WamPolicy
from lerobot_policy_wam.observation import to_observations, to_pictures

from tests.model.conftest import make_model
from tests.model.test_student import make_student
from tests.test_house import pickles
from wam.contracts import Observation, WamError
from wam.control import wam_policy
from wam.control.lerobot import export_lerobot
from wam.data.windows import resize
from wam.model.cloning import CloningConfig, CloningPolicy
from wam.model.pretrained import save_pretrained
from wam.model.student import Student

ROOT = Path(__file__).parents[2]
CAMERAS = ("side", "top")
SENTENCES = ("open the faucet", "", "press the red button")
CLOSE = 1e-5


def student(**changes: object) -> Student:
    found = make_student(**changes)
    found.normalizer("action").fit([0.1] * 4, [0.5, 1.0, 2.0, 1.0])
    found.normalizer("state").fit([0.3] * 4, [2.0] * 4)
    return found


def save_cloning(folder: Path) -> None:
    torch.manual_seed(0)
    policy = CloningPolicy(CloningConfig(channels=8, width=16, image_size=16))
    policy.save_pretrained(folder, tensors=policy.state_dict(), cameras=CAMERAS, provenance={})


SAVED: dict[str, Callable[[Path], None]] = {
    "l1": lambda folder: student().save_pretrained(folder, cameras=CAMERAS),
    "flow": lambda folder: student(head="flow", columns=[0, 2]).save_pretrained(folder, cameras=CAMERAS),
    "looks-back": lambda folder: student(history=2).save_pretrained(folder, cameras=CAMERAS),
    "model": lambda folder: save_pretrained(make_model(), folder, cameras=CAMERAS),
    "cloning": save_cloning,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """(wam's checkpoint, LeRobot's folder) of a kind."""
    made: dict[str, tuple[Path, Path]] = {}

    def write(kind: str) -> tuple[Path, Path]:
        if kind not in made:
            root = tmp_path_factory.mktemp(kind)
            SAVED[kind](root / "checkpoint")
            export_lerobot(root / "checkpoint", root / "lerobot", steps=2)
            made[kind] = (root / "checkpoint", root / "lerobot")
        return made[kind]

    return write


Written = Callable[[str], tuple[Path, Path]]


def load(folder: Path, **overrides: object) -> tuple[WamPolicy, Any, Any]:
    """(policy, preprocessor, postprocessor), by LeRobot's own functions alone."""
    words = [f"--{name}={value}" for name, value in overrides.items()]
    config = PreTrainedConfig.from_pretrained(folder, cli_overrides=words)
    policy = get_policy_class(config.type).from_pretrained(folder, config=config)
    return policy, *make_pre_post_processors(config, pretrained_path=str(folder))


def seen(rows: int, *, seed: int = 0, size: int = 16) -> list[Observation]:
    rng = np.random.default_rng(seed)
    return [
        Observation(
            images={name: rng.integers(0, 256, (size, size, 3), np.uint8) for name in CAMERAS},
            state=rng.standard_normal(4, np.float32),
            instruction=SENTENCES[row % len(SENTENCES)],
        )
        for row in range(rows)
    ]


def as_lerobot(observations: list[Observation]) -> dict[str, Any]:
    """What LeRobot's environments make of them."""
    images = {name: np.stack([o.images[name] for o in observations]) for name in reversed(CAMERAS)}
    batch = preprocess_observation({"pixels": images, "agent_pos": np.stack([o.state for o in observations])})
    return {**batch, "task": [o.instruction for o in observations]}


class TestLoading:
    def test_lerobot_finds_the_plugin_by_its_name(self) -> None:
        code = (
            "import sys; from lerobot.utils.import_utils import register_third_party_plugins as r; "
            "from lerobot.configs import PreTrainedConfig as P; assert 'wam' not in P.get_known_choices(); r(); "
            "assert 'wam' in P.get_known_choices(); assert 'lerobot_policy_wam.modeling_wam' not in sys.modules"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        register_third_party_plugins()
        assert get_policy_class("wam") is WamPolicy

    @pytest.mark.parametrize("kind", SAVED)
    def test_lerobot_would_write_the_files_that_wam_writes(self, kind: str, written: Written, tmp_path: Path) -> None:
        _, folder = written(kind)
        policy, *pipelines = load(folder)
        for part in (policy, *make_pre_post_processors(policy.config), *pipelines):
            part.save_pretrained(tmp_path)
        for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
            assert json.loads((tmp_path / name).read_text()) == json.loads((folder / name).read_text())
        ours, theirs = (json.loads((at / "config.json").read_text()) for at in (folder, tmp_path))
        assert ours == {name: theirs[name] for name in ours}
        assert (tmp_path / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
        assert {path.suffix for path in (*folder.iterdir(), *tmp_path.iterdir())} == {".json", ".safetensors"}
        again = load(tmp_path)[0]
        assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), again.parameters(), strict=True))

    def test_a_flipped_byte_is_found(self, written: Written, tmp_path: Path) -> None:
        folder = shutil.copytree(written("l1")[1], tmp_path / "copy")
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(WamError, match=r"model\.safetensors with sha256"):
            load(folder)

    def test_weights_that_lack_are_never_random(self, written: Written, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        from wam.files import sha256

        folder = shutil.copytree(written("l1")[1], tmp_path / "copy")
        path = folder / "model.safetensors"
        weights = load_file(path)
        weights.pop("model.head.out.bias")
        save_file(weights, path)
        about = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**about, "sha256": sha256(path)}))
        with pytest.raises(WamError, match=r"head\.out\.bias"):
            load(folder)

    def test_a_policy_from_nowhere_says_how_to_get_one(self) -> None:
        with pytest.raises(WamError, match="wam export RUN --format lerobot"):
            WamPolicy(WamConfig(device="cpu"))

    def test_random_weights_are_announced(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        student().save_pretrained(tmp_path / "a", cameras=CAMERAS, provenance={"random": True})
        export_lerobot(tmp_path / "a", tmp_path / "b")
        load(tmp_path / "b")
        assert "weights are random" in caplog.text

    @pytest.mark.parametrize(
        ("overrides", "said"),
        [
            ({"n_action_steps": 9}, "1 to 8"),
            ({"normalization_mapping": '{"ACTION": "MEAN_STD"}'}, "IDENTITY"),
            ({"output_features": '{"action": {"type": "ACTION", "shape": [7]}}'}, "actions of 4 numbers"),
            ({"conditional": "joint"}, "conditional policy"),
        ],
    )
    def test_settings_that_do_not_fit_get_one_sentence(
        self, overrides: dict[str, object], said: str, written: Written
    ) -> None:
        with pytest.raises(WamError, match=said):
            load(written("l1")[1], **overrides)

    def test_the_plugin_unpickles_nothing(self) -> None:
        sources = sorted((ROOT / "tools" / "lerobot_policy_wam" / "src").rglob("*.py"))
        assert len(sources) > 3
        assert [found for path in sources for found in pickles(ast.parse(path.read_text()))] == []


class TestActing:
    @pytest.mark.parametrize("kind", SAVED)
    def test_actions_are_wams_own(self, kind: str, written: Written) -> None:
        checkpoint, folder = written(kind)
        own = wam_policy.load_policy(checkpoint, steps=2)
        policy, before, after = load(folder)
        for seed in range(3):  # a policy that looks back sees three frames go by
            now = seen(5, seed=seed)
            with torch.inference_mode():
                found = policy.predict_action_chunk(before(as_lerobot(now)))
                first = after(found[:, 0])
            wanted = own.act(now)
            assert found.dtype == torch.float32
            np.testing.assert_allclose(found.numpy(), wanted, atol=CLOSE)
            np.testing.assert_allclose(first.numpy(), wanted[:, 0], atol=CLOSE)

    def test_more_steps_are_one_word(self, written: Written) -> None:
        checkpoint, folder = written("model")
        now = seen(2)
        found = load(folder, steps=5)[0].predict_action_chunk(as_lerobot(now))
        np.testing.assert_allclose(found, wam_policy.load_policy(checkpoint, steps=5).act(now), atol=CLOSE)

    @pytest.mark.parametrize("what", ["task", "observation.state", *(f"observation.images.{name}" for name in CAMERAS)])
    def test_everything_that_is_shown_reaches_the_actions(self, what: str, written: Written) -> None:
        policy, batch = load(written("l1")[1])[0], as_lerobot(seen(2))
        changed = ["close it"] * 2 if what == "task" else 1 - batch[what]
        before, after = (policy.predict_action_chunk(b) for b in (batch, {**batch, what: changed}))
        assert (before - after).abs().max() > 1e-3

    def test_pictures_of_another_size_are_brought_to_the_networks_as_in_training(self, written: Written) -> None:
        checkpoint, folder = written("l1")
        large = seen(2, size=48)
        small = [
            Observation(
                images={name: resize(image[None], 16, 16)[0] for name, image in o.images.items()},
                state=o.state,
                instruction=o.instruction,
            )
            for o in large
        ]
        found = load(folder)[0].predict_action_chunk(as_lerobot(large))
        np.testing.assert_allclose(found, wam_policy.load_policy(checkpoint, steps=2).act(small), atol=CLOSE)

    def test_as_many_actions_of_a_chunk_are_carried_out_as_was_asked(self, written: Written) -> None:
        policy, asked = load(written("l1")[1], n_action_steps=3)[0], []
        plan = policy._acting.act
        policy._acting.act = lambda *a: asked.append(plan(*a)) or asked[-1]  # type: ignore[func-returns-value]
        done = [policy.select_action(as_lerobot(seen(2, seed=step))) for step in range(7)]
        assert len(asked) == 3
        for step, action in enumerate(done):
            np.testing.assert_allclose(action, asked[step // 3][:, step % 3], atol=CLOSE)
        policy.reset()
        policy.select_action(as_lerobot(seen(2)))
        assert len(asked) == 4

    def test_a_new_episode_forgets_the_old_ones_frames(self, written: Written) -> None:
        policy = load(written("looks-back")[1])[0]
        fresh = policy.predict_action_chunk(as_lerobot(seen(1, seed=1)))
        assert not torch.allclose(policy.predict_action_chunk(as_lerobot(seen(1, seed=2))), fresh)
        remembered = policy.predict_action_chunk(as_lerobot(seen(1, seed=1)))
        policy.reset()
        np.testing.assert_allclose(policy.predict_action_chunk(as_lerobot(seen(1, seed=1))), fresh)
        assert not torch.allclose(remembered, fresh)


class TestObservations:
    def test_every_grey_comes_back_exactly(self) -> None:
        greys = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
        (given_to_policies,) = preprocess_observation({"pixels": {"top": greys}}).values()
        assert np.array_equal(to_pictures("top", given_to_policies, 16), greys)
        assert np.array_equal(to_pictures("top", torch.from_numpy(greys).permute(0, 3, 1, 2), 16), greys)

    @given(st.integers(1, 3), st.integers(1, 12), st.integers(0, 2**31))
    def test_colours_and_places_stay_where_they_are(self, rows: int, size: int, seed: int) -> None:
        frames = np.random.default_rng(seed).integers(0, 256, (rows, size, size, 3), np.uint8)
        floats = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        assert np.array_equal(to_pictures("top", floats, size), frames)

    @pytest.mark.parametrize("key", ["observation.images.top", "observation.state", "task"])
    def test_a_key_that_lacks_is_named(self, key: str) -> None:
        batch = as_lerobot(seen(2))
        del batch[key]
        with pytest.raises(WamError, match=f"expected a batch with {key}, got observation.images.side.*rename_map"):
            to_observations(batch, {n: f"observation.images.{n}" for n in CAMERAS}, state=True, size=16)

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("observation.images.top", torch.zeros(2, 3, 16, 16) - 0.1, r"in \[0, 1\]"),
            ("observation.images.top", torch.full((2, 3, 16, 16), float("nan")), r"in \[0, 1\]"),
            ("observation.images.top", torch.full((2, 3, 16, 16), 255.0), r"in \[0, 1\]"),
            ("observation.images.top", torch.zeros(2, 3, 16, 16).bfloat16(), "bfloat16"),
            ("observation.images.top", torch.zeros(2, 16, 16, 3), "preprocessor"),
            ("observation.images.top", torch.zeros(3, 16, 16), "preprocessor"),
            ("observation.state", torch.zeros(4), "one state a row"),
            ("observation.state", torch.full((2, 4), float("inf")), "finite state"),
            ("task", ["one sentence"], "2 sentences"),
            ("task", [1, 2], "2 sentences"),
        ],
    )
    def test_what_is_not_as_lerobot_gives_it_gets_one_sentence(self, key: str, value: Any, said: str) -> None:
        with pytest.raises(WamError, match=said):
            to_observations(
                {**as_lerobot(seen(2)), key: value},
                {n: f"observation.images.{n}" for n in CAMERAS},
                state=True,
                size=16,
            )

    def test_one_sentence_may_be_told_to_all(self) -> None:
        batch = {**as_lerobot(seen(2)), "task": "open it"}
        found = to_observations(batch, {"top": "observation.images.top"}, state=False, size=16)
        assert [o.instruction for o in found] == ["open it"] * 2
        assert found[0].state is None


def windows(rows: int) -> dict[str, Any]:
    """Windows of a dataset, as LeRobot's loader gives them; half of the steps are past the episode's end."""
    batch = as_lerobot(seen(rows))
    chunk = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (rows, 8, 4))).float()
    return {**batch, "action": chunk, "action_is_pad": torch.arange(8)[None].repeat(rows, 1) >= 4}


class TestTraining:
    @pytest.mark.parametrize("kind", ["l1", "flow"])
    def test_a_students_loss_falls_and_saved_weights_load(self, kind: str, written: Written, tmp_path: Path) -> None:
        policy, *pipelines = load(written(kind)[1])
        batch, losses = windows(4), []
        optimizer = policy.config.get_optimizer_preset()
        stepping = optimizer.build(policy.get_optim_params())
        for group in stepping.param_groups:
            group["lr"] = 3e-3
        torch.manual_seed(0)
        policy.train()
        for _ in range(60):
            loss, said = policy(batch)
            stepping.zero_grad()
            loss.backward()
            stepping.step()
            losses.append(said["cloning_loss"])
        assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
        for part in (policy.eval(), *pipelines):
            part.save_pretrained(tmp_path)
        again = load(tmp_path)[0]
        assert again.config.provenance["trained_further"].startswith("lerobot ")
        chunks = (p.predict_action_chunk(batch) for p in (policy, again))
        torch.testing.assert_close(*chunks)

    def test_steps_past_the_end_teach_nothing(self, written: Written) -> None:
        policy, batch = load(written("l1")[1])[0], windows(3)
        other = {**batch, "action": torch.where(batch["action_is_pad"][..., None], 50.0, batch["action"])}
        assert policy(batch)[0] == policy(other)[0]
        batch["action_is_pad"] = torch.zeros_like(batch["action_is_pad"])
        other["action_is_pad"] = batch["action_is_pad"]
        assert policy(batch)[0] < policy(other)[0]

    @pytest.mark.parametrize("kind", ["model", "cloning", "looks-back"])
    def test_other_networks_are_left_to_wam(self, kind: str, written: Written) -> None:
        with pytest.raises(WamError, match="train it with wam"):
            load(written(kind)[1])[0](windows(2))


def lerobot(program: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"lerobot.scripts.{program}", *words],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_lerobot_eval_carries_out_wams_actions(written: Written, tmp_path: Path) -> None:
    checkpoint, folder = written("l1")
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ran = lerobot(
        "lerobot_eval",
        f"--policy.path={folder}",
        "--policy.n_action_steps=4",
        "--env.type=toy",
        "--env.discover_packages_path=toy_environment",
        '--rename_map={"observation.images.above": "observation.images.top"}',
        "--eval.n_episodes=1",
        "--eval.batch_size=1",
        f"--output_dir={tmp_path / 'out'}",
        PYTHONPATH=paths,
        TOY_KEEPS=str(tmp_path / "kept.npz"),
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads((tmp_path / "out" / "eval_info.json").read_text())["overall"]["pc_success"] == 100
    kept = dict(np.load(tmp_path / "kept.npz", allow_pickle=False))
    own = wam_policy.load_policy(checkpoint, steps=2)
    for begun in (0, 4):
        images = {name: resize(kept[key][begun][None], 16, 16)[0] for name, key in (("side", "side"), ("top", "above"))}
        seen_then = Observation(images=images, state=kept["state"][begun], instruction="open the faucet")
        np.testing.assert_allclose(kept["action"][begun : begun + 4], own.act([seen_then])[0, :4], atol=CLOSE)


@pytest.mark.slow
def test_lerobot_train_goes_on_with_a_student(written: Written, tmp_path: Path) -> None:
    from wam.data.writer import EpisodeWriter

    rng = np.random.default_rng(0)
    with EpisodeWriter(tmp_path / "data", fps=10, embodiment="toy") as writer:
        for _ in range(2):
            columns = {n: rng.uniform(-1, 1, (12, 4)).astype(np.float32) for n in ("observation.state", "action")}
            images = {name: rng.integers(0, 256, (12, 64, 64, 3), np.uint8) for name in CAMERAS}
            writer.add_episode(images=images, columns=columns, task="open the faucet")
    ran = lerobot(
        "lerobot_train",
        f"--policy.path={written('l1')[1]}",
        "--policy.push_to_hub=false",
        "--dataset.repo_id=local/toy",
        f"--dataset.root={tmp_path / 'data'}",
        "--steps=2",
        "--batch_size=4",
        "--num_workers=0",
        "--save_freq=2",
        "--wandb.enable=false",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    policy, before, _ = load(tmp_path / "out" / "checkpoints" / "000002" / "pretrained_model")
    assert policy.config.provenance["trained_further"].startswith("lerobot ")
    chunk = policy.predict_action_chunk(before(as_lerobot(seen(2))))
    assert chunk.shape == (2, 8, 4)
    assert not torch.allclose(chunk, load(written("l1")[1])[0].predict_action_chunk(as_lerobot(seen(2))))
