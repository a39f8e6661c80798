"""From video without labels to a policy: latent actions as labels, weights carried over, few labels told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.conftest import toy_config, write_toy
from wam.contracts import Batch, WamError
from wam.data.mixture import Mixture
from wam.data.store import EpisodeStore
from wam.model.config import ConditionalConfig, StreamConfig
from wam.model.pretrained import from_pretrained
from wam.tokenizers.latent_action import LatentActionConfig, LatentActionTokenizer
from wam.training.config import DataPart, StartConfig, TrainConfig
from wam.training.data import make_mixture, some_of_each_task
from wam.training.latents import LatentLabels
from wam.training.pseudo import TOLD, PseudoLabels
from wam.training.stage import make_stage
from wam.training.stages.joint import JointStage
from wam.training.stages.pretrain import PretrainStage
from wam.training.start import renamed, start_from
from wam.training.state import newest_checkpoint
from wam.training.trainer import train


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that says it was trained; what its codes mean is not looked at here."""
    folder = tmp_path_factory.mktemp("tokenizer")
    torch.manual_seed(0)
    made = LatentActionTokenizer(LatentActionConfig(image_size=16, gap=4, base=8, width=16))
    made.save_pretrained(folder, provenance={"random": False})
    return folder


def latent_config(toy: Path, output: Path, tokenizer: Path, **changes: object) -> TrainConfig:
    """Future and latent actions of unlabelled video."""
    config = toy_config(toy, output, stage="pretrain", latent_actions=str(tokenizer), **changes)
    del config.model.streams["action"]
    config.model.streams["latent_action"] = StreamConfig(kind="chunk", predicts="x0", registers=4)
    config.model.conditionals = [
        ConditionalConfig(name="policy", weight=1.0, clocks={"latent_action": "draw"}),
        ConditionalConfig(name="forward_dynamics", weight=1.0, clocks={"latent_action": "clean", "future": "draw"}),
    ]
    return config


def test_pretraining_sees_no_action_and_no_state(toy: Path, tmp_path: Path, tokenizer: Path) -> None:
    stage = make_stage(latent_config(toy, tmp_path / "run", tokenizer))
    assert isinstance(stage, PretrainStage)
    batch = stage.mixture.batch([[0, 3], [1, 5]])  # type: ignore[arg-type]
    assert batch.action is None
    assert batch.state is None
    losses = stage.losses(batch, generator=torch.Generator().manual_seed(0))
    assert set(losses) == {"loss", "latent_action_alone", "latent_action", "future"}


def test_pretraining_with_an_action_stream_is_refused(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(WamError, match=r"model\.streams\.action=null"):
        make_stage(toy_config(toy, tmp_path / "run", stage="pretrain"))


def test_a_latent_stream_without_a_tokenizer_is_refused(toy: Path, tmp_path: Path, tokenizer: Path) -> None:
    with pytest.raises(WamError, match="set latent_actions"):
        make_stage(replace(latent_config(toy, tmp_path / "run", tokenizer), latent_actions=""))


def test_a_tokenizer_of_another_gap_or_of_random_weights_is_refused(toy: Path, tmp_path: Path, tokenizer: Path) -> None:
    config = toy_config(toy, tmp_path / "run")
    with pytest.raises(WamError, match=r"4 frames after the present.*model\.future=\[2,4\]"):
        LatentLabels(tokenizer, replace(config.model, future=[3, 6]))
    LatentActionTokenizer(LatentActionConfig(image_size=16, gap=4, base=8, width=16)).save_pretrained(tmp_path / "raw")
    with pytest.raises(WamError, match="random weights"):
        LatentLabels(tmp_path / "raw", config.model)


def test_latents_are_of_the_frames_a_gap_apart_and_unknown_past_an_episodes_end(
    toy: Path, tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy_config(toy, tmp_path / "run")
    labels = LatentLabels(tokenizer, config.model)
    assert labels.offsets == [4, 8]
    batch = make_mixture(config)[0].datasets[0].batch([0, 15, 19])
    found = labels.label(batch)
    assert found.latent_action is not None
    assert found.latent_action.shape == (3, labels.length, labels.dim)
    assert found.latent_action_mask is not None
    assert found.latent_action_mask.tolist() == [[True, True], [True, False], [False, False]]
    read: list[torch.Tensor] = []
    encode = labels.tokenizer.encode
    monkeypatch.setattr(labels.tokenizer, "encode", lambda frames, **kw: (read.append(frames), encode(frames, **kw))[1])
    assert batch.future is not None
    padded = torch.cat([batch.images, batch.future], dim=2)  # the model's future may hold other frames between
    labels._places = [1]
    labels.label(batch)
    assert torch.equal(read[0], padded[:, :, [0, 2]])


def test_an_unknown_latent_teaches_nothing(toy: Path, tmp_path: Path, tokenizer: Path) -> None:
    stage = make_stage(latent_config(toy, tmp_path / "run", tokenizer))
    assert isinstance(stage, JointStage)
    batch = stage.mixture.batch([[0, 3], [0, 4]])  # type: ignore[arg-type]
    label = stage.latents.label  # type: ignore[union-attr]

    def loss(change: float) -> float:
        def spoiled(batch: Batch) -> Batch:
            found = label(batch)
            latent, mask = found.latent_action.clone(), found.latent_action_mask.clone()  # type: ignore[union-attr]
            latent[1] += change
            mask[1] = False
            return found.replace(latent_action=latent, latent_action_mask=mask)

        stage.latents.label = spoiled  # type: ignore[method-assign, union-attr]
        return stage.losses(batch, generator=torch.Generator().manual_seed(0))["latent_action_alone"].item()

    assert loss(0.0) == loss(5.0)


def test_the_chain_from_unlabelled_video_to_a_policy(toy: Path, tmp_path: Path, tokenizer: Path) -> None:
    free = write_toy(tmp_path / "video", action_free=True)
    pretrained = train(latent_config(free, tmp_path / "pretrained", tokenizer, steps=3))
    assert from_pretrained(pretrained.checkpoint).config.latent_action_length == 2
    start = StartConfig(checkpoint=str(tmp_path / "pretrained"), rename={"latent_action": "action"})
    config = toy_config(toy, tmp_path / "run", stage="posttrain", start=start, steps=3)
    result = train(config)
    model = from_pretrained(result.checkpoint)
    assert model.provenance["started_from"] == str(newest_checkpoint(tmp_path / "pretrained"))
    sample = model.policy(make_mixture(config)[0].datasets[0].batch([0, 1]), steps=1)
    assert sample.action is not None
    assert sample.action.shape == (2, config.model.chunk, 2)


def test_weights_are_carried_over_by_name_and_the_latent_expert_becomes_the_actions(
    toy: Path, tmp_path: Path, tokenizer: Path
) -> None:
    train(latent_config(toy, tmp_path / "pretrained", tokenizer, steps=2))
    old = from_pretrained(newest_checkpoint(tmp_path / "pretrained")).state_dict()
    config = toy_config(toy, tmp_path / "run")
    model = JointStage(config).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    started = start_from(
        model, StartConfig(checkpoint=str(tmp_path / "pretrained"), rename={"latent_action": "action"})
    )
    new = model.state_dict()
    for name in started.taken:
        source = name.replace(".action", ".latent_action").replace(">action", ">latent_action")
        source = source.replace("action->", "latent_action->").replace("latent_latent_", "latent_")
        assert torch.equal(new[name], old[source if source in old else name]), name
    assert any(name.startswith("network.transformer.experts.action") for name in started.taken)
    assert any(name.startswith("network.videos.observation") for name in started.taken)
    assert all(torch.equal(new[name], before[name]) for name in started.fresh)
    assert "network.heads.action.project.weight" in started.fresh  # another number of dimensions
    assert torch.equal(new["normalizers.action.scale"], before["normalizers.action.scale"])
    assert "heads.action" in str(started)


def test_frozen_parts_stay_as_they_came_and_the_rest_is_trained(toy: Path, tmp_path: Path) -> None:
    train(toy_config(toy, tmp_path / "before", steps=2))
    start = StartConfig(checkpoint=str(tmp_path / "before"), freeze=["stems.text", "edges.text->action"])
    config = toy_config(toy, tmp_path / "run", stage="posttrain", start=start, steps=3)
    train(config)
    config.steps = 5  # a run that is taken up again leaves the same ones alone
    train(config)
    old, new = (from_pretrained(newest_checkpoint(tmp_path / run)).state_dict() for run in ("before", "run"))
    kept = {name for name, value in new.items() if torch.equal(value, old[name])}
    frozen = {n for n in new if n.startswith(("network.stems.text.", "network.edges.text->action."))}
    assert len(frozen) > 5
    assert frozen <= kept
    assert "network.edges.state->action.weight" not in kept
    assert "network.edges.text->future.weight" not in kept
    for part, says in (("stems.tex", "there is none"), ("heads.action.projec", "there is none")):
        start.freeze = [part]
        with pytest.raises(WamError, match=says):
            start_from(JointStage(toy_config(toy, tmp_path / "other")).model, start)


def test_streams_are_renamed_whole_and_in_edges() -> None:
    streams = {"latent_action": "action"}
    assert renamed("network.edges.text->latent_action.weight", streams) == "network.edges.text->action.weight"
    assert renamed("network.edges.latent_action->future.bias", streams) == "network.edges.action->future.bias"
    assert renamed("network.stems.latent_actions.weight", streams) == "network.stems.latent_actions.weight"


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (StartConfig(checkpoint="nowhere"), "a run with a checkpoint at nowhere"),
        (StartConfig(checkpoint="TOKENIZER"), "a world-action model in"),
        (StartConfig(checkpoint="RUN", rename={"latent_actoin": "action"}), "latent_actoin"),
    ],
)
def test_a_start_that_cannot_be_says_what_is_wrong(
    toy: Path, tmp_path: Path, tokenizer: Path, start: StartConfig, says: str
) -> None:
    config = toy_config(toy, tmp_path / "run", steps=1)
    train(config)
    start.checkpoint = start.checkpoint.replace("TOKENIZER", str(tokenizer)).replace("RUN", str(tmp_path / "run"))
    with pytest.raises(WamError, match=says):
        start_from(JointStage(config).model, start)


def test_posttraining_from_nothing_is_refused(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(WamError, match=r"start\.checkpoint"):
        make_stage(toy_config(toy, tmp_path / "run", stage="posttrain"))


def test_the_first_few_episodes_of_a_task_and_the_others_have_none_in_common(toy: Path, tmp_path: Path) -> None:
    store = EpisodeStore(toy)
    few = some_of_each_task(store, range(6), skip=0, take=1)
    others = some_of_each_task(store, range(6), skip=1, take=0)
    assert sorted([*few, *others]) == list(range(6))
    assert {store.episodes[i].play for i in few} == {True, False}  # play counts as a task of its own
    with pytest.raises(WamError, match="after the first 9 of each task"):
        some_of_each_task(store, range(6), skip=9, take=1)


def test_labelled_episodes_and_hidden_ones_train_together(toy: Path, tmp_path: Path) -> None:
    config = toy_config(toy, tmp_path / "run", steps=2)
    config.data.parts = [
        DataPart(root=str(toy), name="few", take=1),
        DataPart(root=str(toy), name="video", skip=1, hide_actions=True),
    ]
    mixture = make_mixture(config)[0]
    batch = mixture.batch([[0, 0], [len(mixture.datasets) - 1, 0]])  # type: ignore[arg-type]
    assert batch.action_mask is not None
    assert batch.action_mask.any(1).tolist() == [True, False]
    assert train(config).steps == 2


def hidden_and_few(toy: Path, output: Path, tokenizer: Path, *, take: int = 4, **changes: object) -> TrainConfig:
    config = toy_config(toy, output, latent_actions=str(tokenizer), pseudo_labels=True, **changes)
    config.data.parts = [
        DataPart(root=str(toy), name="few", take=take),
        DataPart(root=str(toy), name="video", skip=take, hide_actions=True),
    ]
    return config


class Colours:
    """In place of a tokenizer: how much the background's colour, which shows the square's place, changes."""

    offsets = (4, 8)

    def label(self, batch: Batch) -> Batch:
        assert batch.future is not None
        assert batch.future_mask is not None
        seen = torch.cat([batch.images, batch.future], dim=2)[:, 0, :, 0, 0, :2].float()
        return batch.replace(latent_action=seen[:, 1:] - seen[:, :1], latent_action_mask=batch.future_mask)


def test_pseudo_labels_are_the_actions_and_states_that_video_tells(tmp_path: Path, tokenizer: Path) -> None:
    tinted = write_toy(tmp_path / "data", episodes=32, tinted=True)
    config = hidden_and_few(tinted, tmp_path / "run", tokenizer, take=8)
    mixture = make_mixture(config)[0]
    pseudo = PseudoLabels.fit(Colours(), mixture.datasets)  # type: ignore[arg-type]
    assert (pseudo.action_r2 > 0.6).all(), pseudo
    assert (pseudo.state_r2 > TOLD).all(), pseudo  # the background's colour is the place
    before = mixture.batch([[0, 0], [0, 19]])  # type: ignore[arg-type]
    for dataset in mixture.datasets:
        if dataset.action_dim is None:
            pseudo.label(dataset)
    after = mixture.batch([[0, 0], [0, 19]])  # type: ignore[arg-type]
    for name in ("action", "action_mask", "state"):
        assert torch.equal(getattr(before, name), getattr(after, name)), "true labels stay"
    config.data.parts[1].hide_actions = False
    true, told = video_windows(make_mixture(config)[0]), video_windows(mixture)
    assert told.action_mask is not None
    assert true.action_mask is not None
    assert torch.equal(told.action_mask, true.action_mask), "to the end of every episode"
    assert told.state_mask is not None
    assert told.state_mask.all()
    assert (told.state - true.state).abs().mean() < 0.5  # type: ignore[operator]
    there = true.action_mask
    wrong = (told.action - true.action)[there].square().mean()  # type: ignore[operator]
    assert wrong < 0.5 * true.action[there].square().mean()  # type: ignore[index]


def test_episodes_too_short_for_a_pair_of_frames_stay_without_actions(tmp_path: Path, tokenizer: Path) -> None:
    few = write_toy(tmp_path / "few", episodes=12, tinted=True)
    short = write_toy(tmp_path / "short", episodes=4, length=8, tinted=True)
    config = hidden_and_few(few, tmp_path / "run", tokenizer)
    config.data.parts[1] = DataPart(root=str(short), name="video", hide_actions=True)
    mixture = make_mixture(config)[0]
    pseudo = PseudoLabels.fit(Colours(), mixture.datasets)  # type: ignore[arg-type]
    place = next(i for i, name in enumerate(mixture.names) if name.startswith("video"))
    pseudo.label(mixture.datasets[place])
    found = video_windows(mixture)
    assert found.action_mask is not None
    assert not found.action_mask.any()
    with pytest.raises(WamError, match="for a dataset without"):
        pseudo.label(mixture.datasets[place])


def video_windows(mixture: Mixture) -> Batch:
    place = next(i for i, name in enumerate(mixture.names) if name.startswith("video"))
    return mixture.batch([[place, row] for row in range(len(mixture.datasets[place]))])  # type: ignore[arg-type]


def test_video_with_pseudo_labels_trains_the_policy(tmp_path: Path, tokenizer: Path) -> None:
    config = hidden_and_few(write_toy(tmp_path / "data", episodes=12), tmp_path / "run", tokenizer, steps=2)
    with pytest.warns(UserWarning, match="tell little"):  # the tokenizer is not trained
        stage = make_stage(config)
    assert isinstance(stage, JointStage)
    losses = stage.losses(video_windows(stage.mixture)[[0, 1, 2, 3]], generator=torch.Generator().manual_seed(0))
    assert losses["action_alone"].item() > 0
    with pytest.warns(UserWarning, match="tell little"):
        assert train(config).steps == 2


def test_a_state_that_is_not_known_is_not_read(tmp_path: Path, tokenizer: Path) -> None:
    toy = write_toy(tmp_path / "data", episodes=12)
    config = hidden_and_few(toy, tmp_path / "run", tokenizer)
    config.pseudo_labels = False
    stage = make_stage(config)
    batch = video_windows(stage.mixture)[[0, 1, 2, 3]]
    assert batch.state is not None
    assert batch.state_mask is not None
    assert not batch.state_mask.any()
    assert isinstance(stage, JointStage)
    network, known = stage.model.network, batch.replace(state_mask=torch.ones_like(batch.state_mask))
    for told, reads in ((batch, False), (known, True)):
        one, other = (network.context(b).summaries["state"] for b in (told, told.replace(state=batch.state + 1)))
        assert torch.equal(one, other) != reads


def test_pseudo_labels_want_a_tokenizer_and_labelled_episodes(toy: Path, tmp_path: Path, tokenizer: Path) -> None:
    with pytest.raises(WamError, match="pseudo_labels=false"):
        toy_config(toy, tmp_path / "run", pseudo_labels=True).validate()
    config = hidden_and_few(toy, tmp_path / "run", tokenizer, take=1)
    with pytest.raises(WamError, match="at least 4 episodes with actions"):
        make_stage(config)
