"""Captions are true of their pictures and use known words only, in every domain."""

from __future__ import annotations

import pytest
import torch

from casl_bench.domains.rendered import RENDERED, RenderedDomain
from casl_bench.domains.rendering.captions import (
    CONTEXT_LENGTH,
    MAX_STATEMENTS,
    CaptionWriter,
    compatible,
)
from casl_bench.models.clip import WordTokenizer

MANNERS = [(d, m) for d in RENDERED.values() for m in d.wording.manners]
IDS = [f"{d.name} {m}" for d, m in MANNERS]


def _attributes(n: int, count: int) -> torch.Tensor:
    return torch.rand(n, count, generator=torch.Generator().manual_seed(0)) < 0.5


@pytest.mark.parametrize(("domain", "manner"), MANNERS, ids=IDS)
def test_captions_are_true_and_fit_the_tokenizer(domain: RenderedDomain, manner: str) -> None:
    names, wording = domain.drawing.attributes, domain.wording
    attributes = _attributes(300, len(names))
    rng = torch.Generator().manual_seed(1)
    captions = CaptionWriter(wording, manner).describe(attributes, rng)
    assert bool(compatible(captions.statements, attributes).diagonal().all())
    stated = (captions.statements != 0).sum(1)
    assert set(stated.tolist()) == set(range(MAX_STATEMENTS + 1))
    WordTokenizer(wording.vocabulary(), CONTEXT_LENGTH)(captions.texts)
    # A text says what its statements say: one of the manner's phrases for each.
    ways = wording.phrases(manner)
    for text, row in zip(captions.texts, captions.statements.tolist(), strict=True):
        for name, value in zip(names, row, strict=True):
            if value:
                assert any(p in text for p in ways[name][0 if value > 0 else 1]), (text, name)


def test_compatible_is_agreement_of_every_statement() -> None:
    attributes = _attributes(40, 8)
    statements = torch.randint(-1, 2, (30, 8), generator=torch.Generator().manual_seed(2))
    got = compatible(statements.to(torch.int8), attributes)
    for i in range(40):
        for j in range(30):
            agree = all(
                s == 0 or (s > 0) == bool(a)
                for s, a in zip(statements[j].tolist(), attributes[i].tolist(), strict=True)
            )
            assert bool(got[i, j]) == agree


@pytest.mark.parametrize(("domain", "manner"), MANNERS, ids=IDS)
def test_contrasts_differ_and_repeat(domain: RenderedDomain, manner: str) -> None:
    writer = CaptionWriter(domain.wording, manner)
    yes, no = writer.contrasts(torch.Generator().manual_seed(3))
    assert len(yes) == len(no) == len(domain.drawing.attributes)
    assert all(a != b for a, b in zip(yes, no, strict=True))
    assert (yes, no) == writer.contrasts(torch.Generator().manual_seed(3))


@pytest.mark.parametrize("domain", RENDERED.values(), ids=lambda d: d.name)
def test_concepts_are_asked_for_in_canonical_words(domain: RenderedDomain) -> None:
    wording = domain.wording
    tokenizer = WordTokenizer(wording.vocabulary(), CONTEXT_LENGTH)
    for concept in domain.drawing.concepts:
        tokenizer([concept.source_prompt, concept.target_prompt])
        yes, no = wording.common[concept.attribute]
        assert any(phrase in concept.target_prompt for phrase in yes)
        assert any(phrase in concept.source_prompt for phrase in no)


@pytest.mark.parametrize("domain", RENDERED.values(), ids=list(RENDERED))
def test_the_longest_caption_fits_the_text_tower(domain: RenderedDomain) -> None:
    wording = domain.wording
    for manner in wording.manners:
        phrases = wording.phrases(manner).values()
        longest = sorted(max(len(p.split()) for p in yes + no) for yes, no in phrases)
        nouns = max(len(f"{lead} {noun}".split()) for lead, noun in wording.nouns[manner])
        stated = longest[-MAX_STATEMENTS:]
        # Clauses are joined by "and"; the text tower adds a start and an end.
        assert nouns + sum(stated) + len(stated) - 1 <= CONTEXT_LENGTH - 2
