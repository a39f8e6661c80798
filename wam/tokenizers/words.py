"""Words as hashed numbers: what the learned text encoder reads, without torch, so that a robot can make it.

Hash embeddings follow Svenstrup et al. 2017 (two hashes a word, summed), so that no vocabulary file is needed and two
words share a vector only if both of their hashes collide.
"""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Sequence
from functools import lru_cache

NULL, UNKNOWN = 1, 2  # the tokens of the empty sentence and of a word that training never met; 0 is padding
UNKNOWN_WORD = "_"


@lru_cache(maxsize=65536)
def word_ids(sentence: str, vocabulary: int, max_words: int) -> tuple[tuple[int, int], ...]:
    """Two hashed ids in 3..vocabulary-1 per word; the empty sentence is (NULL, NULL), an unknown word (UNKNOWN, UNKNOWN)."""
    words = re.findall(r"\w+", sentence.lower())
    if len(words) > max_words:
        warnings.warn(f"sentences longer than {max_words} words are cut: {sentence!r}; raise max_words", stacklevel=2)
    ids = tuple(
        (UNKNOWN, UNKNOWN) if word == UNKNOWN_WORD else (_hash(word, vocabulary), _hash(f"{word}#", vocabulary))
        for word in words[:max_words]
    )
    return ids or ((NULL, NULL),)


def _hash(text: str, vocabulary: int) -> int:
    return 3 + zlib.crc32(text.encode()) % (vocabulary - 3)


def pad_ids(ids: Sequence[tuple[tuple[int, int], ...]], length: int) -> list[tuple[tuple[int, int], ...]]:
    """Sentences of word ids, all of one length."""
    return [words + ((0, 0),) * (length - len(words)) for words in ids]
