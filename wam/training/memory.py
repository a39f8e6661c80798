"""How a training process takes its memory on a CPU."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # numbers of glibc's mallopt
_LARGE = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask glibc to keep what is freed, since the next step wants it again.

    Each step of a training allocates the same large tensors; handed back to the system and taken anew, every page of
    them faults once a step. Returns whether the C library took the advice.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(
        mallopt(option, value)
        for option, value in ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE), (_TOP_PAD, 64 * 2**20))
    )
