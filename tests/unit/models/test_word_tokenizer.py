"""Words to numbers and back to clear errors."""

from __future__ import annotations

import pytest

from casl_bench.core.errors import InputError
from casl_bench.models.clip import WordTokenizer


@pytest.fixture
def tokenizer() -> WordTokenizer:
    return WordTokenizer(["a", "face", "hat", "with"], context_length=6)


def test_start_words_end_padding(tokenizer: WordTokenizer) -> None:
    assert tokenizer(["a face", "With A hat"]).tolist() == [[5, 1, 2, 6, 0, 0], [5, 4, 1, 3, 6, 0]]


def test_the_end_has_the_highest_number_because_it_is_found_by_argmax(
    tokenizer: WordTokenizer,
) -> None:
    tokens = tokenizer(["a face with hat"])
    assert int(tokens.argmax(1)) == 5
    assert int(tokens.max()) == 6


def test_an_unknown_word_gets_the_nearest(tokenizer: WordTokenizer) -> None:
    with pytest.raises(InputError, match="did you mean 'face'"):
        tokenizer(["a fase"])


def test_a_long_text_is_refused(tokenizer: WordTokenizer) -> None:
    with pytest.raises(InputError, match="5 words, at most 4"):
        tokenizer(["a face with a hat"])
