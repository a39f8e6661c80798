"""Actions as integers: uniform bins per number, and FAST codes per chunk. Neither holds a network.

Both scale each dimension by its 1st and 99th percentile to [-1, 1] first, so that one rare value does not spoil the
resolution; values beyond are clipped (bins) or kept as far as the code reaches (FAST).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.fft import dct, idct

from wam.contracts import expected
from wam.files import write_bytes
from wam.settings import missing_file

_MIN_SPAN = 1e-6  # a dimension that never moves is scaled as if it spanned this much


class _Scaler:
    """Between an action's own units and [-1, 1] over q01..q99, per dimension (A)."""

    def __init__(self, q01: Sequence[float] | np.ndarray, q99: Sequence[float] | np.ndarray) -> None:
        self.q01, self.q99 = np.asarray(q01, dtype=np.float64), np.asarray(q99, dtype=np.float64)
        if self.q01.ndim != 1 or self.q01.shape != self.q99.shape or not (self.q01 <= self.q99).all():
            raise expected(
                "quantiles q01 <= q99, one of each per action dimension",
                got=f"{self.q01.tolist()} and {self.q99.tolist()}",
                do="take them from the dataset's statistics",
            )
        self._half = np.maximum(self.q99 - self.q01, _MIN_SPAN) / 2
        self._middle = (self.q99 + self.q01) / 2

    @property
    def dim(self) -> int:
        return len(self.q01)

    def scale(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, dtype=np.float64)
        if action.ndim < 1 or action.shape[-1] != self.dim or not np.isfinite(action).all():
            finite = bool(np.isfinite(action).all())
            raise expected(
                f"finite actions of shape (..., {self.dim})",
                got=f"shape {action.shape}, finite: {finite}",
                do="check the recorded actions",
            )
        return (action - self._middle) / self._half

    def unscale(self, scaled: np.ndarray) -> np.ndarray:
        return (scaled * self._half + self._middle).astype(np.float32)


class BinTokenizer:
    """One of `bins` uniform bins per number, over q01..q99 (RT-1, Brohan et al. 2022; OpenVLA, Kim et al. 2024).

    Codes are the bins' indices; a bin decodes to its centre, so the error inside q01..q99 is at most half a bin.
    """

    def __init__(
        self, q01: Sequence[float] | np.ndarray, q99: Sequence[float] | np.ndarray, *, bins: int = 256
    ) -> None:
        if bins < 2:
            raise expected("at least 2 bins", got=bins, do="give more bins")
        self.scaler, self.bins = _Scaler(q01, q99), bins

    @classmethod
    def fit(cls, actions: np.ndarray, *, bins: int = 256) -> BinTokenizer:
        """Bins over the quantiles of actions (..., A)."""
        return cls(*_quantiles(actions), bins=bins)

    @property
    def vocabulary(self) -> int:
        return self.bins

    @property
    def resolution(self) -> np.ndarray:
        """Width of a bin per dimension (A), in the actions' units."""
        return 2 * self.scaler._half / self.bins

    def encode(self, action: np.ndarray) -> np.ndarray:
        """Actions (..., A) in their own units -> codes (..., A) int64 in 0..bins-1; beyond q01..q99 the outermost bin."""
        place = (self.scaler.scale(action) + 1) / 2 * self.bins
        return np.clip(np.floor(place), 0, self.bins - 1).astype(np.int64)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Codes (..., A) -> the bins' centres (..., A) float32."""
        codes = np.asarray(codes)
        if codes.shape[-1:] != (self.scaler.dim,) or codes.min(initial=0) < 0 or codes.max(initial=0) >= self.bins:
            raise expected(
                f"codes of shape (..., {self.scaler.dim}) in 0..{self.bins - 1}",
                got=f"shape {codes.shape} in {codes.min(initial=0)}..{codes.max(initial=0)}",
                do="decode with the tokenizer that encoded them",
            )
        return self.scaler.unscale((codes + 0.5) / self.bins * 2 - 1)

    def save(self, path: Path) -> None:
        """Write the tokenizer as JSON."""
        _write(path, "bins", {"bins": self.bins, **_quantile_lists(self.scaler)})

    @classmethod
    def load(cls, path: Path) -> BinTokenizer:
        data = _read(path, "bins", ("q01", "q99", "bins"))
        return cls(data["q01"], data["q99"], bins=data["bins"])


class FastTokenizer:
    """A chunk as a few integers: cosine transform over time, rounding, byte-pair merges (FAST, Pertsch et al. 2025).

    Coefficients are scaled by `scale` before rounding (10: an error of about 0.05 of the range per coefficient), clipped
    to +-`reach`, ordered by frequency and then dimension, and merged by a byte-pair code fitted to training chunks. Any
    sequence of ids decodes: a wrong length is padded with zeros or cut, as a generating model may give one.
    """

    def __init__(
        self,
        q01: Sequence[float] | np.ndarray,
        q99: Sequence[float] | np.ndarray,
        *,
        chunk: int,
        scale: float = 10.0,
        reach: int = 255,
        pairs: Any,
    ) -> None:
        self.scaler, self.chunk, self.scale, self.reach, self.pairs = _Scaler(q01, q99), chunk, scale, reach, pairs

    @classmethod
    def fit(cls, chunks: np.ndarray, *, vocabulary: int = 1024, scale: float = 10.0, reach: int = 255) -> FastTokenizer:
        """A code for chunks like `chunks` (N, K, A), in their own units."""
        from tokenizers import Tokenizer, models, trainers

        chunks = np.asarray(chunks)
        if chunks.ndim != 3 or not len(chunks):
            raise expected("chunks of shape (N, K, A)", got=f"shape {chunks.shape}", do="stack windows of one length")
        if vocabulary < 2 * reach + 1 or scale <= 0:
            raise expected(
                f"a scale above 0 and a vocabulary of at least {2 * reach + 1}, one per rounded coefficient",
                got=f"{scale} and {vocabulary}",
                do="raise the vocabulary or lower `reach`",
            )
        tokenizer = cls(*_quantiles(chunks), chunk=chunks.shape[1], scale=scale, reach=reach, pairs=None)
        texts = [tokenizer._text(chunk) for chunk in chunks]
        pairs = Tokenizer(models.BPE())
        pairs.train_from_iterator(
            texts,
            trainers.BpeTrainer(
                vocab_size=vocabulary,
                min_frequency=2,
                show_progress=False,
                initial_alphabet=[_letter(value, reach) for value in range(-reach, reach + 1)],
                max_token_length=64,
            ),
        )
        tokenizer.pairs = pairs
        return tokenizer

    @property
    def vocabulary(self) -> int:
        return self.pairs.get_vocab_size()

    def encode(self, chunk: np.ndarray) -> list[int]:
        """One chunk (K, A) in its own units -> ids; fewer, the smoother the chunk."""
        return self.pairs.encode(self._text(chunk)).ids

    def decode(self, ids: Sequence[int]) -> np.ndarray:
        """Ids -> the chunk (K, A) float32."""
        size = self.chunk * self.scaler.dim
        unknown = [i for i in ids if not 0 <= i < self.vocabulary]
        if unknown:
            raise expected(
                f"ids in 0..{self.vocabulary - 1}", got=unknown[0], do="decode with the tokenizer that encoded them"
            )
        text = "".join(self.pairs.id_to_token(int(i)) for i in ids)
        values = np.zeros(size)
        known = [_value(letter, self.reach) for letter in text[:size]]
        values[: len(known)] = known
        coefficients = values.reshape(self.chunk, self.scaler.dim) / self.scale
        return self.scaler.unscale(idct(coefficients, axis=0, norm="ortho"))

    def save(self, path: Path) -> None:
        """Write the tokenizer, its merges too, as one JSON file."""
        code = {"chunk": self.chunk, "scale": self.scale, "reach": self.reach, "pairs": json.loads(self.pairs.to_str())}
        _write(path, "fast", {**_quantile_lists(self.scaler), **code})

    @classmethod
    def load(cls, path: Path) -> FastTokenizer:
        from tokenizers import Tokenizer

        data = _read(path, "fast", ("q01", "q99", "chunk", "scale", "reach", "pairs"))
        pairs = Tokenizer.from_str(json.dumps(data["pairs"]))
        return cls(data["q01"], data["q99"], chunk=data["chunk"], scale=data["scale"], reach=data["reach"], pairs=pairs)

    def _text(self, chunk: np.ndarray) -> str:
        """The rounded coefficients of a chunk as letters, low frequencies first."""
        scaled = self.scaler.scale(chunk)
        if scaled.shape != (self.chunk, self.scaler.dim):
            raise expected(
                f"a chunk of shape ({self.chunk}, {self.scaler.dim})",
                got=f"shape {scaled.shape}",
                do="cut it to length",
            )
        rounded = np.rint(dct(scaled, axis=0, norm="ortho") * self.scale)
        return "".join(_letter(int(v), self.reach) for v in np.clip(rounded, -self.reach, self.reach).ravel())


# letters: one printable character per integer, from the CJK block, which has no spaces, controls or combining marks
_FIRST = 0x4E00


def _letter(value: int, reach: int) -> str:
    return chr(_FIRST + value + reach)


def _value(letter: str, reach: int) -> int:
    return ord(letter) - _FIRST - reach


def _quantiles(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """q01 and q99 (A) of actions (..., A)."""
    actions = np.asarray(actions, dtype=np.float64)
    if actions.ndim < 2 or not actions.size or not np.isfinite(actions).all():
        raise expected(
            "finite actions of shape (..., A)", got=f"shape {actions.shape}", do="drop empty episodes and NaN actions"
        )
    q01, q99 = np.quantile(actions.reshape(-1, actions.shape[-1]), [0.01, 0.99], axis=0)
    return q01, q99


def _quantile_lists(scaler: _Scaler) -> dict[str, list[float]]:
    return {"q01": scaler.q01.tolist(), "q99": scaler.q99.tolist()}


def _write(path: Path, kind: str, data: Mapping[str, Any]) -> None:
    write_bytes(Path(path), (json.dumps({"kind": kind, **data}, ensure_ascii=False) + "\n").encode())


def _read(path: Path, kind: str, keys: tuple[str, ...]) -> dict[str, Any]:
    path = Path(path)
    if not path.is_file():
        raise missing_file(path, "an action tokenizer")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise expected(f"JSON in {path}", got=str(error), do="save the tokenizer again") from error
    if not isinstance(data, dict) or data.get("kind") != kind:
        got = data.get("kind") if isinstance(data, dict) else type(data).__name__
        raise expected(f"a tokenizer of kind {kind!r} in {path}", got=repr(got), do="load it with its own class")
    if missing := [key for key in keys if key not in data]:
        raise expected(f"{', '.join(keys)} in {path}", got=f"no {missing[0]}", do="save the tokenizer again")
    return data
