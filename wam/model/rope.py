"""Rotary position embedding over (t, y, x): 3D for frames, 1D for chunks (y = x = 0), none at the origin (text).

Streams share the axes, so a future patch sits at a known offset from the patch it grew out of, and an action at a known
time from both. Source: Su et al. 2021; three axes as in Wan and CogVideoX.
"""

from __future__ import annotations

import torch
from torch import Tensor


def axis_sizes(head_dim: int) -> tuple[int, int, int]:
    """How many of a head's dimensions turn with t, y and x: even numbers that sum to head_dim."""
    time = max(2, head_dim // 4 // 2 * 2)
    side = (head_dim - time) // 2 // 2 * 2
    return head_dim - 2 * side, side, side


def rotary_table(positions: Tensor, head_dim: int, *, base: float = 100.0) -> tuple[Tensor, Tensor]:
    """positions (L, 3) -> cos, sin, each (L, head_dim)."""
    angles = []
    for axis, size in enumerate(axis_sizes(head_dim)):
        frequency = base ** (-torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / max(size, 1))
        angles.append(positions[:, axis, None].float() * frequency)
    half = torch.cat(angles, dim=-1)
    both = torch.cat([half, half], dim=-1)
    return both.cos(), both.sin()


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """x (B, N, L, head_dim) turned by its positions."""
    cos, sin = (part.to(x.dtype) for part in table)
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


def grid_positions(times: Tensor, grid: int, views: int) -> Tensor:
    """(T * V * grid * grid, 3) positions of video tokens in (t v y x) order; times (T,) in dataset frames."""
    side = torch.arange(grid, dtype=torch.float32)
    t, _, y, x = torch.meshgrid(times.float(), torch.zeros(views), side, side, indexing="ij")
    return torch.stack([t, y, x], dim=-1).reshape(-1, 3)


def chunk_positions(times: Tensor) -> Tensor:
    """(K, 3) positions of chunk tokens; times (K,) in dataset frames."""
    return torch.stack([times.float(), torch.zeros(len(times)), torch.zeros(len(times))], dim=-1)
