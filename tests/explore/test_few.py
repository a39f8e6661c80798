"""A few episodes: what is there stays, what was interrupted goes on, and none starts where training did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.training.conftest import VOXELS, write_toy, write_voxels
from wam.contracts import WamError
from wam.data.store import EpisodeStore
from wam.explore import few
from wam.explore.few import FEW, few_episodes
from wam.geometry.grid import VoxelConfig
from wam.settings import load_settings
from wam.simulation.config import CollectConfig

ROOT = Path(__file__).parents[2]


def never(*_: object, **__: object) -> None:
    raise AssertionError("nothing is to be made")


def test_a_dataset_that_is_there_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few, "collect", never)
    monkeypatch.setattr(few, "label_occupancy", never)
    root = write_voxels(write_toy(tmp_path / "data"))
    assert few_episodes(root) == few_episodes(root, grid=VoxelConfig(**VOXELS)) == root  # type: ignore[arg-type]
    with pytest.raises(WamError, match="another folder"):
        few_episodes(root, grid=VoxelConfig())


def test_an_interrupted_collection_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("metaworld")
    config = replace(
        FEW, environments=("pusht/pusht",), episodes=0, play_episodes=2, play_steps=4, cameras=(), processes=1
    )
    real, made = few.collect, []

    def stop_after_one(*arguments: object, progress: object, **options: object) -> None:
        def report(done: int, total: int) -> None:
            if done == 1 and not made:
                made.append(done)
                raise KeyboardInterrupt

        real(*arguments, progress=report, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(few, "collect", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        few_episodes(tmp_path / "data", config=config)
    assert len(EpisodeStore(few_episodes(tmp_path / "data", config=config))) == 2
    monkeypatch.setattr(few, "collect", never)
    assert few_episodes(tmp_path / "data", config=config) == tmp_path / "data"


@pytest.mark.parametrize("name", ["demo", "metaworld-cpu"])
def test_no_training_here_saw_its_starts(name: str) -> None:
    trained = load_settings(CollectConfig, ROOT / "configs" / "data" / f"{name}.yaml")
    starts = {job.start(trained.seed, attempt) for job in trained.jobs() for attempt in range(trained.attempts)}
    assert starts.isdisjoint(job.start(FEW.seed, attempt) for job in FEW.jobs() for attempt in range(FEW.attempts))


def test_its_cameras_are_those_that_the_shipped_model_sees() -> None:
    card = yaml.safe_load((ROOT / "notebooks" / "model" / "config.yaml").read_text())
    assert tuple(card["cameras"]) == FEW.cameras
