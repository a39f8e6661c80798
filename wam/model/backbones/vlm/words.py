"""Sentences as the ids that a language model was trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from wam.contracts import expected
from wam.model.backbones.vlm.catalogue import SPECIAL


class Words(Protocol):
    """A language model's tokenizer."""

    def ids(self, text: str) -> list[int]:
        """Text in which names in angle brackets may be tokens of the vocabulary."""
        ...


class PretrainedWords:
    """The tokenizer beside a pretrained language model."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, source: str, revision: str | None) -> PretrainedWords:
        """Raises WamError where it is not on this machine."""
        from transformers import AutoTokenizer

        from wam.tokenizers.frozen import not_on_disk

        try:
            return cls(AutoTokenizer.from_pretrained(source, revision=revision))
        except (OSError, ValueError, ImportError) as error:
            raise not_on_disk("the tokenizer", source, revision, error) from error

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def check(self, special: tuple[str, ...], *, name: str) -> None:
        """Raises WamError where a token that the prompt needs is not one of its own."""
        if missing := [token for token in special if len(self.ids(token)) != 1]:
            raise expected(
                f"a tokenizer of {name} that knows {', '.join(special)}",
                got=f"none for {missing[0]}",
                do="copy the tokenizer's files of the same repository",
            )


class Bytes:
    """A letter is its bytes: for tiny networks at random, which have no tokenizer."""

    special: Mapping[str, int] = {name: 256 + i for i, name in enumerate(SPECIAL)}

    def ids(self, text: str) -> list[int]:
        found: list[int] = []
        for part in re.split("(" + "|".join(map(re.escape, self.special)) + ")", text):
            found += [self.special[part]] if part in self.special else list(part.encode())
        return found
