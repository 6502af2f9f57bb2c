"""`--plugin` with this file adds toy pictures whose concepts are named what breaks out of pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from casl_bench.conformance.toy_domain import ATTRIBUTES, CARD, ToyShapes, toy_domain
from casl_bench.domains.dataset import DATASETS, Concept
from casl_bench.domains.domain import DOMAINS, Domain
from casl_bench.domains.options import DomainOptions

DATASET = "<svg/onload=alert(0)>|`a`"
NAMES = (
    "<script>alert(1)</script>",
    "](javascript:alert(2))|![x](http://a/b)",
    "</details>\"'><img src=x onerror=alert(3)>",
)
"""One a concept."""
LABELS = tuple(name.replace("/", "") for name in NAMES)
"""One an attribute: a slash is refused in these, as the score tables use it."""


class HostileShapes(ToyShapes):
    """The toy pictures under other names."""

    card = replace(
        CARD,
        name=DATASET,
        attributes=LABELS,
        concepts=tuple(
            Concept(name, "a square", f"a {attribute} square", label)
            for name, attribute, label in zip(NAMES, ATTRIBUTES, LABELS, strict=True)
        ),
    )

    def oracle(self, image_ids: Sequence[str], attribute: str) -> Tensor:
        """As theirs, of the attribute under its usual name."""
        return super().oracle(image_ids, ATTRIBUTES[LABELS.index(attribute)])


def hostile_domain(device: str = "cpu", options: DomainOptions | None = None) -> Domain:
    """The toy domain under these names."""
    domain = toy_domain(device, options)
    for classifier in domain.classifiers:
        classifier.attributes = LABELS
    factors: Any = domain.factors
    factors.attributes = factors.columns = factors.names = LABELS
    return replace(domain, dataset=HostileShapes())


DATASETS.register(DATASET, HostileShapes)
DOMAINS.register(DATASET, hostile_domain)
