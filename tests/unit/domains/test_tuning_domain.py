"""What settings are tuned on and by is apart from what is ranked and who scores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from casl_bench.conformance.toy_domain import CARD, toy_domain, toy_tuning_domain
from casl_bench.core.errors import InvalidBenchmarkError, UsageError


def test_a_domain_for_tuning_has_the_tuning_classifier_alone() -> None:
    domain = toy_tuning_domain()
    view = domain.for_tuning()
    assert [c.info.name for c in view.classifiers] == ["toy_tuner"]
    assert "toy_tuner" in view.scorer_hashes and "toy_tuner" not in domain.scorer_hashes
    assert view.tuning_concepts == CARD.concepts[:2]


def test_a_scorer_does_not_tune() -> None:
    domain = toy_tuning_domain()
    with pytest.raises(InvalidBenchmarkError, match="'toy_reader' is the scorer 'toy_reader'"):
        replace(domain, tuning_classifier=domain.classifiers[0])


def test_what_is_ranked_is_not_tuned_on() -> None:
    with pytest.raises(InvalidBenchmarkError, match="'striped' is of an attribute that is ranked"):
        replace(toy_tuning_domain(), tuning_concepts=CARD.concepts[1:])


def test_a_domain_that_holds_nothing_out_is_refused() -> None:
    with pytest.raises(UsageError, match="no classifier to tune by"):
        toy_domain().for_tuning()
    with pytest.raises(UsageError, match="no concepts to tune by"):
        replace(toy_tuning_domain(), tuning_concepts=()).for_tuning()
