"""Text → token numbers, one a word: a CLIP of forty words needs no 49,408-entry vocabulary."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor

from casl_bench.core.errors import InputError


class WordTokenizer:
    """Words in lower case; padding is 0, then the words, then start and end of text.

    The end has the highest number because open_clip finds it by argmax.

    Args:
        words: the vocabulary, in order.
        context_length: tokens of a text, start and end included.
    """

    def __init__(self, words: Sequence[str], context_length: int) -> None:
        self.words, self.context_length = tuple(words), context_length
        self._number = {word: 1 + i for i, word in enumerate(self.words)}
        self._start, self._end = len(self.words) + 1, len(self.words) + 2

    @property
    def vocab_size(self) -> int:
        """Tokens in all, padding, start and end included."""
        return len(self.words) + 3

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Tokens of texts.

        Returns:
            [n, context_length] int64, padded with 0 behind the end.

        Raises:
            InputError: a word is not in the vocabulary or a text is too long.
        """
        out = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in zip(out, texts, strict=True):
            tokens = [self._start, *(self._lookup(w) for w in text.lower().split()), self._end]
            if len(tokens) > self.context_length:
                raise InputError(
                    f"text of {len(tokens) - 2} words, at most {self.context_length - 2} fit",
                    where=text,
                )
            row[: len(tokens)] = torch.tensor(tokens)
        return out

    def _lookup(self, word: str) -> int:
        number = self._number.get(word)
        if number is None:
            near = difflib.get_close_matches(word, self.words, n=1, cutoff=0.4)
            offer = f"did you mean '{near[0]}'? " if near else ""
            known = ", ".join(sorted(self.words))
            raise InputError(
                f"this CLIP does not know the word '{word}'", mend=f"{offer}(known: {known})"
            )
        return number
