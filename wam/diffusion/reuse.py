"""Step caching: a velocity that hardly turned between two steps is taken again at the next, which costs no network call.

Along a straight path the velocity stays as it is, and flow matching learns nearly straight ones; where the last two
velocities point the same way, the network is asked again only after one more step. Source of the idea: DreamZero's cache,
which compares successive velocities by their cosine.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from wam.contracts import expected
from wam.diffusion.samplers import Signals, VelocityField


class Reusing:
    """A velocity field that asks `velocity` and now and then gives its last answer instead.

    least: cosine of the last two velocities from which the last one is given again, the least over streams and rows; above 1
    it never is, and every sample is what it would be without. calls, reused: how often the network was asked, and was not.
    """

    def __init__(self, velocity: VelocityField, *, least: float) -> None:
        if not least > 0:
            raise expected("a cosine above 0 to reuse velocities from", got=least, do="set `reuse` to 0.95, say")
        self.velocity, self.least = velocity, least
        self.calls = self.reused = 0
        self._last: list[Signals] = []  # the newest two that the network gave

    def __call__(self, signals: Signals, clocks: dict[str, Tensor]) -> Signals:
        if len(self._last) == 2 and self._turned_little():
            self.reused += 1
            last = self._last[-1]
            self._last = [
                last
            ]  # so that the next step asks again, and only an answer that agrees lets another be left out
            return last
        found = self.velocity(signals, clocks)
        self.calls += 1
        self._last = [*self._last[-1:], found]
        return found

    def _turned_little(self) -> bool:
        before, now = self._last
        turned = [F.cosine_similarity(before[s].flatten(1), x.flatten(1)).min() for s, x in now.items()]
        return all(float(cosine) >= self.least for cosine in turned)
