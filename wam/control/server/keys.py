"""From a request's keys to an observation, checked so that nothing odd reaches the policy."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wam.contracts import Observation, expected
from wam.control.server.config import KeysConfig
from wam.control.server.served import Served
from wam.data.windows import resize

LONGEST_SIDE = 8192
LARGEST = 1e9
"""Of a state's numbers: no robot reads more, and a network's sums overflow on much more."""
_MISSING = object()


class KeyMap:
    """Which key feeds which camera, the state and the sentence of a served model.

    Raises WamError if the config names a camera that the model does not have, or a model with a state gets no key for it.
    """

    def __init__(self, keys: KeysConfig, served: Served, *, prompt_characters: int = 2000) -> None:
        if unknown := sorted(set(keys.images) - set(served.cameras)):
            raise expected(
                f"keys.images to name cameras of the model, {', '.join(served.cameras)}",
                got=", ".join(unknown),
                do=_nearest(unknown[0], served.cameras, otherwise="rename or remove them"),
            )
        self.images = {
            camera: keys.images.get(camera, keys.image.replace("{camera}", camera)) for camera in served.cameras
        }
        self.state, self.prompt, self.default_prompt = list(keys.state), keys.prompt, keys.default_prompt
        self.state_dim, self.size = served.state_dim, served.image_size
        self.prompt_characters = prompt_characters

    def observation(self, request: Mapping[Any, Any]) -> Observation:
        """The observation that a request describes, its pictures brought to the model's size. Raises WamError."""
        return Observation(
            images={camera: self._picture(request, camera, key) for camera, key in self.images.items()},
            state=self._state(request) if self.state else None,
            instruction=self._sentence(request),
        )

    def _get(self, request: Mapping[Any, Any], key: str, what: str) -> Any:
        value = look(request, key)
        if value is _MISSING:
            came = sorted(str(name)[:80] for name in request)
            near = _nearest(key, came, otherwise=f"send it, or set keys.{what} on the server")
            raise expected(f"a request with {key!r}", got=", ".join(came[:24]) or "an empty one", do=near)
        return value

    def _picture(self, request: Mapping[Any, Any], camera: str, key: str) -> np.ndarray:
        """(size, size, 3) uint8. Height may come first or, as ALOHA's clients send it, channels."""
        value = self._get(request, key, f"images.{camera}")
        if isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[-1] != 3 and value.shape[0] == 3:
            value = np.moveaxis(value, 0, -1)
        fits = isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim == 3 and value.shape[-1] == 3
        if not fits or not all(1 <= side <= LONGEST_SIDE for side in value.shape):
            raise expected(
                f"{key!r} as a picture: uint8 of shape (H, W, 3) or (3, H, W), sides up to {LONGEST_SIDE}",
                got=_describe(value),
                do="convert it to 8-bit RGB",
            )
        return resize(np.ascontiguousarray(value)[None], self.size, self.size)[0]

    def _state(self, request: Mapping[Any, Any]) -> np.ndarray:
        """(S,) float32."""
        parts = [_numbers(key, self._get(request, key, "state")) for key in self.state]
        state = np.concatenate(parts)
        bad = int((~(np.abs(state) <= LARGEST)).sum())  # NaN is not below either
        if state.shape != (self.state_dim,) or bad:
            sizes = " + ".join(str(len(part)) for part in parts)
            raise expected(
                f"{self.state_dim} finite numbers up to {LARGEST:g} in {', '.join(self.state)}",
                got=f"{sizes} numbers, {bad} of them not finite or larger",
                do="check the robot's readings and the order of the keys",
            )
        return state

    def _sentence(self, request: Mapping[Any, Any]) -> str:
        found = look(request, self.prompt)
        if found is _MISSING and self.default_prompt is not None:
            return self.default_prompt
        found = self._get(request, self.prompt, "prompt")
        if not isinstance(found, str) or len(found) > self.prompt_characters:
            got = f"{len(found)} characters" if isinstance(found, str) else _describe(found)
            raise expected(
                f"{self.prompt!r} as text of up to {self.prompt_characters} characters", got=got, do="say less"
            )
        return found


def look(request: Mapping[Any, Any], key: str) -> Any:
    """What stands under a key, or under its parts in dictionaries inside one another."""
    if key in request:
        return request[key]
    head, _, rest = key.partition("/")
    inner = request.get(head)
    return look(inner, rest) if rest and isinstance(inner, Mapping) else _MISSING


def _numbers(key: str, value: Any) -> np.ndarray:
    """(n,) float32 of an array, a number or a list of numbers."""
    flat: Any = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    if isinstance(value, np.ndarray):
        flat = value.ravel()
    elif not all(isinstance(number, bool | int | float | np.number) for number in flat):
        raise expected(f"{key!r} as numbers", got=_describe(value), do="send an array of floats")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused
        try:
            return np.asarray(flat, np.float64).astype(np.float32)
        except OverflowError as error:
            raise expected(f"{key!r} as numbers that a float holds", got="a larger one", do="check it") from error


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__


def _nearest(name: str, known: Sequence[str], *, otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"did you mean {near[0]!r}?" if near else otherwise
