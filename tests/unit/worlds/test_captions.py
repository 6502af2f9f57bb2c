"""Captions are true of their pictures and use known words only."""

from __future__ import annotations

import pytest
import torch

from casl_bench.backbones.word_tokenizer import WordTokenizer
from casl_bench.images.rendered_faces import ATTRIBUTES
from casl_bench.images.rendered_faces_dataset import CONCEPTS
from casl_bench.worlds.captions import (
    CONTEXT_LENGTH,
    MANNERS,
    MAX_STATEMENTS,
    CaptionWriter,
    compatible,
    phrases,
    vocabulary,
)


def _attributes(n: int) -> torch.Tensor:
    return torch.rand(n, len(ATTRIBUTES), generator=torch.Generator().manual_seed(0)) < 0.5


@pytest.mark.parametrize("manner", MANNERS)
def test_captions_state_what_is_true_and_fit_the_tokenizer(manner: str) -> None:
    attributes = _attributes(300)
    rng = torch.Generator().manual_seed(1)
    captions = CaptionWriter(manner).describe(attributes, rng)
    assert bool(compatible(captions.statements, attributes).diagonal().all())
    stated = (captions.statements != 0).sum(1)
    assert set(stated.tolist()) == set(range(MAX_STATEMENTS + 1))
    WordTokenizer(vocabulary(), CONTEXT_LENGTH)(captions.texts)
    # A text says what its statements say: one of the manner's phrases for each.
    ways = phrases(manner)
    for text, row in zip(captions.texts, captions.statements.tolist(), strict=True):
        for name, value in zip(ATTRIBUTES, row, strict=True):
            if value:
                assert any(p in text for p in ways[name][0 if value > 0 else 1]), (text, name)


def test_compatible_is_agreement_of_every_statement() -> None:
    attributes = _attributes(40)
    statements = torch.randint(-1, 2, (30, 8), generator=torch.Generator().manual_seed(2))
    got = compatible(statements.to(torch.int8), attributes)
    for i in range(40):
        for j in range(30):
            agree = all(
                s == 0 or (s > 0) == bool(a)
                for s, a in zip(statements[j].tolist(), attributes[i].tolist(), strict=True)
            )
            assert bool(got[i, j]) == agree


@pytest.mark.parametrize("manner", MANNERS)
def test_contrasts_differ_and_repeat_with_the_generator(manner: str) -> None:
    writer = CaptionWriter(manner)
    yes, no = writer.contrasts(torch.Generator().manual_seed(3))
    assert len(yes) == len(no) == len(ATTRIBUTES)
    assert all(a != b for a, b in zip(yes, no, strict=True))
    assert (yes, no) == writer.contrasts(torch.Generator().manual_seed(3))


def test_concepts_are_asked_for_in_known_words() -> None:
    tokenizer = WordTokenizer(vocabulary(), CONTEXT_LENGTH)
    tokenizer([p for c in CONCEPTS for p in (c.source_prompt, c.target_prompt)])
