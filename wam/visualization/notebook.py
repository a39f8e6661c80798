"""What notebooks show: tables of pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np


def show(rows: Sequence[tuple[str, Sequence[np.ndarray]]], heads: Sequence[str] = (), *, width: float = 1.35) -> None:
    """A table of pictures (H, W, 3), a word beside each row and over each column; width: of a picture, inches."""
    import matplotlib.pyplot as plt

    columns = max(len(pictures) for _, pictures in rows)
    size = (width * columns, 1.1 * width * len(rows))
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    for (word, pictures), line in zip(rows, axes, strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(False)
        for axis, picture in zip(line, pictures, strict=False):
            axis.imshow(picture, interpolation="nearest")
        line[0].set_ylabel(textwrap.fill(word, 14), fontsize=9)
    for axis, head in zip(axes[0], heads, strict=False):
        axis.set_title(head, fontsize=8)
    figure.tight_layout(pad=0.3)
    plt.show()
