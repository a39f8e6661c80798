"""What to collect: `CollectConfig`, and the list of episodes that follows from it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from wam.contracts import expected
from wam.simulation.environment import Environment, make_environment
from wam.simulation.record import Job
from wam.simulation.recovery import RecoveryNoise

DEMO_TASKS = tuple(
    f"metaworld/{task}-v3" for task in ("faucet-open", "faucet-close", "drawer-open", "button-press-topdown")
)


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """What to collect.

    environments: names, all of one family. episodes: successful expert episodes for each; play_episodes: episodes of
    play for each, of play_steps steps. cameras: names; empty for the family's default. image_size: pixels. depth: record it
    beside the colours. action_repeat: simulator steps a frame, 0 for the family's default. attempts: how often an expert may
    fail one episode. settle_steps: frames recorded after success. astray: share of expert episodes that begin where play has
    left the hand, so that a policy finds its way from places off the usual one. processes: 0 for one per processor.
    """

    environments: tuple[str, ...] = DEMO_TASKS
    episodes: int = 40
    play_episodes: int = 20
    play_steps: int = 112
    cameras: tuple[str, ...] = ()
    image_size: int = 64
    depth: bool = False
    action_repeat: int = 0
    seed: int = 0
    attempts: int = 5
    settle_steps: int = 6
    astray: float = 0.0
    renderer: str = "raycast"
    noise: RecoveryNoise = field(default_factory=RecoveryNoise)
    processes: int = 0

    def __post_init__(self) -> None:
        for name in ("environments", "cameras"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.environments or len(set(self.environments)) < len(self.environments):
            raise expected("at least one environment, each once", got=self.environments, do="name different ones")
        if len({name.partition("/")[0] for name in self.environments}) > 1:
            raise expected(
                "environments of one family, since a dataset has one action space",
                got=", ".join(self.environments),
                do="collect each family into its own folder",
            )
        for name, least in (("episodes", 0), ("play_episodes", 0), ("play_steps", 2), ("image_size", 2)):
            self._at_least(name, least)
        for name, least in (("attempts", 1), ("settle_steps", 0), ("action_repeat", 0), ("processes", 0), ("seed", 0)):
            self._at_least(name, least)
        if not 0 <= self.astray <= 1:
            raise expected("an astray between 0 and 1", got=self.astray, do="give a share of the expert's episodes")
        if self.episodes + self.play_episodes == 0:
            raise expected("episodes or play_episodes above 0", got="0 of both", do="ask for at least one episode")

    def _at_least(self, name: str, least: int) -> None:
        if getattr(self, name) < least:
            raise expected(f"{name} of at least {least}", got=getattr(self, name), do="raise it")

    def jobs(self) -> tuple[Job, ...]:
        """Every episode, in the order of the dataset: through tasks and kinds in turn, so that any part is balanced."""
        return tuple(
            Job(environment=name, play=play, index=index)
            for index in range(max(self.episodes, self.play_episodes))
            for play, count in ((False, self.episodes), (True, self.play_episodes))
            if index < count
            for name in self.environments
        )

    def make(self, name: str) -> Environment:
        return make_environment(
            name,
            cameras=self.cameras or None,
            image_size=self.image_size,
            action_repeat=self.action_repeat or None,
            renderer=self.renderer,
            depth=self.depth,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What decides the content, as JSON has it; `starts` tells it from that of versions which gave each task its own."""
        values = {key: value for key, value in dataclasses.asdict(self).items() if key != "processes"}
        for name in ("depth", "astray"):  # unset, as in datasets that were begun before there was either
            if not values[name]:
                del values[name]
        return json.loads(json.dumps({**values, "starts": "by number"}))
