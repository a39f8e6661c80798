"""The episodes that a model may start from: those of its training data that were held out, or all of another dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wam.contracts import expected
from wam.data.splits import split_episodes
from wam.data.store import EpisodeStore
from wam.data.windows import WindowDataset
from wam.explore.starts import open_windows
from wam.model.wam import WorldActionModel
from wam.training.config import TrainConfig


class Episodes:
    """data: a dataset's folder, in place of what `trained` names. Opened when first asked for."""

    def __init__(self, model: WorldActionModel, trained: TrainConfig | None, data: str | Path | None) -> None:
        self.model, self.trained, self.data = model, trained, data
        self._held_out: dict[bool, list[WindowDataset]] = {}

    def roots(self) -> list[Path]:
        """The datasets. Raises WamError if there are none here."""
        named: Sequence[str | Path] = []
        if self.data is not None:
            named = [self.data]
        elif self.trained is not None:
            named = [part.root for part in self.trained.data.parts]
        found = [Path(root) for root in named if Path(root).is_dir()]
        if not found:
            raise expected(
                "the data that the run was trained on", got=", ".join(map(str, named)) or "none", do="name some: data="
            )
        return found

    def held_out(self, *, play: bool) -> list[WindowDataset]:
        """Windows of demonstrations or of play, by dataset."""
        if play not in self._held_out:
            found = []
            for root in self.roots():
                store = EpisodeStore(root)
                chosen = [i for i in self._aside(store) if store.episodes[i].play == play]
                if chosen:
                    found.append(open_windows(self.model, root, episodes=chosen))
            if not found:
                kind = "play" if play else "expert"
                raise expected(f"{kind} episodes to start from", got="none", do="name other data, or the other kind")
            self._held_out[play] = found
        return self._held_out[play]

    def at(self, place: float, *, play: bool) -> tuple[WindowDataset, int]:
        """The window at a place among all held-out frames, from 0 to 1."""
        if not 0 <= place <= 1:
            raise expected("a place from 0 to 1", got=place, do="0 is the first held-out frame, 1 the last")
        datasets = self.held_out(play=play)
        row = round(place * (sum(map(len, datasets)) - 1))
        for windows in datasets:
            if row < len(windows):
                return windows, row
            row -= len(windows)
        raise AssertionError("a place lies in one of the datasets")

    def of(self, episode: int, frame: int) -> tuple[WindowDataset, int]:
        """The window of an episode and frame of the first dataset."""
        store = EpisodeStore(self.roots()[0])
        if not 0 <= episode < len(store):
            raise expected(f"an episode from 0 to {len(store) - 1}", got=episode, do="choose one of the dataset")
        windows = open_windows(self.model, store.root, episodes=[episode])
        if not 0 <= frame < len(windows):
            raise expected(f"a frame from 0 to {len(windows) - 1}", got=frame, do="choose one of the episode")
        return windows, frame

    def _aside(self, store: EpisodeStore) -> Sequence[int]:
        if self.data is not None or self.trained is None or not self.trained.data.held_out:
            return range(len(store))
        config = self.trained.data
        return split_episodes(store, held_out_share=config.held_out, seed=config.split_seed)[1]
