"""Captions for rendered pictures: made from the known attributes, in two manners of speaking.

A caption states a few attributes, present or absent; a manner is a choice of templates and of
words, so that two CLIPs need not have read the same sentences. The wording of the concepts' prompts
belongs to both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Phrases = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
"""Attribute → ways to say that it is there, ways to say that it is not."""

CONTEXT_LENGTH = 26
MAX_STATEMENTS = 4
# The canonical words are taken this often, since concepts are asked for in them.
_COMMON_SHARE = 0.5


@dataclass(frozen=True)
class Captions:
    """Texts of n captions and what they state, int8 [n, A]: 1 present, -1 absent, 0 nothing."""

    texts: list[str]
    statements: Tensor


@dataclass(frozen=True)
class Wording:
    """The words of a domain.

    Attributes:
        common: canonical phrases, in the order of the domain's attributes; the concepts' prompts
            are made of them.
        extra: manner → more phrases of that manner alone.
        nouns: manner → (lead, noun) pairs, such as ("a portrait of a", "face").
        openers: first words of phrases that follow the noun; any other phrase is an adjective
            and stands before it.
    """

    common: Phrases
    extra: Mapping[str, Phrases]
    nouns: Mapping[str, tuple[tuple[str, str], ...]]
    openers: tuple[str, ...] = ("with", "without", "wearing")

    @property
    def attributes(self) -> tuple[str, ...]:
        """What captions may state."""
        return tuple(self.common)

    @property
    def manners(self) -> tuple[str, ...]:
        """Ways of speaking: that of the CLIP that guides, then that of the one that scores."""
        return tuple(self.nouns)

    def phrases(self, manner: str) -> Phrases:
        """All ways of a manner to say that an attribute is there or is not."""
        extra = self.extra[manner]
        return {k: (yes + extra[k][0], no + extra[k][1]) for k, (yes, no) in self.common.items()}

    def vocabulary(self) -> list[str]:
        """Every word of every manner, sorted."""
        words = {"and"}
        for manner in self.manners:
            for lead, noun in self.nouns[manner]:
                words.update(lead.split(), [noun])
            for yes, no in self.phrases(manner).values():
                words.update(word for phrase in yes + no for word in phrase.split())
        return sorted(words)


class CaptionWriter:
    """Writes captions in one of the manners of a wording."""

    def __init__(self, wording: Wording, manner: str) -> None:
        self._common, self._all = wording.common, wording.phrases(manner)
        self._nouns, self._openers = wording.nouns[manner], wording.openers
        self._attributes = wording.attributes

    def describe(self, attributes: Tensor, rng: torch.Generator) -> Captions:
        """One caption per image, true of its attributes [n, A], stating up to `MAX_STATEMENTS`."""
        n = len(attributes)
        # Short captions are frequent: they say most about a single attribute.
        weights = torch.tensor([0.05, 0.35, 0.25, 0.2, 0.15])
        counts = torch.multinomial(weights, n, replacement=True, generator=rng).tolist()
        order = torch.rand(n, len(self._attributes), generator=rng).argsort(1).tolist()
        statements = torch.zeros(n, len(self._attributes), dtype=torch.int8)
        texts = []
        for row, count in enumerate(counts):
            stated = order[row][:count]
            values = attributes[row].tolist()
            for k in stated:
                statements[row, k] = 1 if values[k] else -1
            texts.append(self._sentence([(k, values[k]) for k in stated], rng))
        return Captions(texts, statements)

    def contrasts(self, rng: torch.Generator) -> tuple[list[str], list[str]]:
        """For every attribute a caption that states it and one that denies it: two lists of A."""
        indices = range(len(self._attributes))
        yes = [self._sentence([(k, True)], rng) for k in indices]
        no = [self._sentence([(k, False)], rng) for k in indices]
        return yes, no

    def _sentence(self, stated: list[tuple[int, bool]], rng: torch.Generator) -> str:
        lead, noun = self._nouns[self._draw(len(self._nouns), rng)]
        adjectives: list[str] = []
        clauses: list[str] = []
        for k, present in stated:
            common = float(torch.rand((), generator=rng)) < _COMMON_SHARE
            ways = (self._common if common else self._all)[self._attributes[k]][0 if present else 1]
            phrase = ways[self._draw(len(ways), rng)]
            is_clause = phrase.split()[0] in self._openers
            (clauses if is_clause else adjectives).append(phrase)
        parts = [lead, *adjectives, noun]
        if clauses:
            parts.append(" and ".join(clauses))
        return " ".join(parts)

    @staticmethod
    def _draw(count: int, rng: torch.Generator) -> int:
        return int(torch.randint(count, (), generator=rng))


def compatible(statements: Tensor, attributes: Tensor) -> Tensor:
    """[n, m] bool: which captions are true of which images.

    Args:
        statements: int8 [m, A] in {-1, 0, 1}.
        attributes: bool [n, A].
    """
    signs = attributes.float() * 2 - 1
    stated = statements.float()
    # True where every statement agrees: the products sum to the number of statements.
    agreement = signs @ stated.T
    return agreement >= stated.abs().sum(1) - 0.5
