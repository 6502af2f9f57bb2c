"""Control: the perfect edit of another attribute than the one asked for.

A real and local edit whose words are wrong: it should move the target as little as any bystander.
Which attribute stands in is drawn by a hash of the concept's own, so that it depends on nothing
but the data set's list, and different concepts get different ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from casl_bench.core.errors import InputError
from casl_bench.core.seeding import derive_seed
from casl_bench.methods.method import EditTask, MethodInfo, register_method
from casl_bench.methods.pixel_editor import RerenderMethod


def stand_in(attribute: str, others: Sequence[str]) -> str:
    """The one of the others that is edited in place of an attribute.

    Raises:
        InputError: if there is no other.
    """
    if not others:
        raise InputError("there is no other attribute to edit", where=f"attribute '{attribute}'")
    return others[derive_seed(0, "shuffled", attribute) % len(others)]


@register_method
class Shuffled(RerenderMethod):
    """Re-render with another factor flipped."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="shuffled",
        title="another concept's oracle",
        source="control",
        version=1,
        control=True,
        needs_oracle=True,
        bidirectional=False,
    )

    def attribute(self, task: EditTask) -> str:
        """Another one. Raises InputError where the data set has no other."""
        return stand_in(task.concept.attribute, task.other_attributes)
