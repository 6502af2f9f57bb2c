"""Captions of photographs: made from the names of their labels and from the texts of concepts.

"a photo with blond hair and without bangs". A concept is asked for by its two texts, such as "face"
and "smiling face", so these are read as well: the target's as a caption, and as what states the
attribute against the source's, which denies nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from casl_bench.domains.dataset import Concept
from casl_bench.domains.rendering.captions import (
    CONTEXT_LENGTH,
    MAX_STATEMENTS,
    CaptionWriter,
    Wording,
)

Prompts = Mapping[str, tuple[str, str]]
"""Attribute → source and target prompt of its concept."""

_MANNERS = {
    "photo": ((("a", "photo"), ("this", "photo")), "showing {}", "showing no {}"),
    "picture": ((("a", "picture"), ("an", "image")), "that has {}", "that has no {}"),
}
"""Manner → its nouns, and its own ways to state an attribute and to deny it."""


class PromptedWriter(CaptionWriter):
    """Writes captions in which half of the time a concept's own texts stand for its attribute."""

    def __init__(self, wording: Wording, manner: str, prompts: Prompts) -> None:
        super().__init__(wording, manner)
        columns = enumerate(wording.attributes)
        self._prompts = {k: prompts[name] for k, name in columns if name in prompts}

    def contrasts(self, rng: torch.Generator) -> tuple[list[str], list[str]]:
        """For every attribute a caption that states it and one that denies it or is silent."""
        yes, no = super().contrasts(rng)
        for k, (source, target) in self._prompts.items():
            if self._draw(2, rng):
                yes[k], no[k] = target, source
        return yes, no

    def _sentence(self, stated: list[tuple[int, bool]], rng: torch.Generator) -> str:
        # The source says nothing of the attribute: no caption of an image that lacks it alone.
        told = [self._prompts[k][1] for k, present in stated if present and k in self._prompts]
        if len(stated) == len(told) == 1 and self._draw(2, rng):
            return told[0]
        return super()._sentence(stated, rng)


@dataclass(frozen=True)
class PhotoCaptions:
    """The words of a data set of photographs with these labels and concepts."""

    attributes: tuple[str, ...]
    concepts: tuple[Concept, ...]

    @property
    def prompts(self) -> tuple[tuple[str, str], ...]:
        """Texts that deny and state each attribute: its concept's, or made of its name."""
        own = self._own
        return tuple(
            own.get(name, (f"a photo without {_words(name)}", f"a photo with {_words(name)}"))
            for name in self.attributes
        )

    @property
    def writers(self) -> tuple[tuple[str, CaptionWriter], ...]:
        """Each manner of speaking, and who writes in it."""
        return tuple((m, PromptedWriter(self._wording, m, self._own)) for m in _MANNERS)

    @property
    def vocabulary(self) -> tuple[list[str], int]:
        """All words of all captions and prompts, and the tokens of the longest."""
        wording, texts = self._wording, [text for pair in self.prompts for text in pair]
        texts += [text for c in self.concepts for text in (c.source_prompt, c.target_prompt)]
        words = {word for text in texts for word in text.lower().split()}
        longest = sorted(
            max(len(way.split()) for m in wording.manners
                for ways in wording.phrases(m)[name] for way in ways)
            for name in self.attributes
        )[-MAX_STATEMENTS:]  # fmt: skip
        # Lead and noun, statements joined by "and"; start and end.
        caption = 2 + sum(longest) + len(longest) - 1
        length = 2 + max(caption, *(len(text.split()) for text in texts))
        return sorted(words | set(wording.vocabulary())), max(CONTEXT_LENGTH, length)

    @property
    def _own(self) -> dict[str, tuple[str, str]]:
        # Where several concepts are of one attribute, the first.
        pairs = [(c.attribute, (c.source_prompt, c.target_prompt)) for c in self.concepts]
        return dict(reversed(pairs))

    @property
    def _wording(self) -> Wording:
        words = {name: _words(name) for name in self.attributes}
        return Wording(
            common={n: ((f"with {w}",), (f"without {w}",)) for n, w in words.items()},
            extra={
                manner: {n: ((yes.format(w),), (no.format(w),)) for n, w in words.items()}
                for manner, (_, yes, no) in _MANNERS.items()
            },
            nouns={manner: nouns for manner, (nouns, _, _) in _MANNERS.items()},
            openers=("with", "without", "showing", "that"),
        )


def _words(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())
