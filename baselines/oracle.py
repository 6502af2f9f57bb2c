"""Control: the perfect edit, known only where the image's factors are.

The image is rendered again with the one factor flipped; the change of pixels is added to the
reconstruction, so that the oracle has the same baseline as every method and strength 1 is exactly
the known edit.
"""

from __future__ import annotations

from typing import ClassVar

from casl_bench.methods.method import MethodInfo, register_method
from casl_bench.methods.pixel_editor import RerenderMethod


@register_method
class Oracle(RerenderMethod):
    """Re-render with the factor flipped."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="oracle",
        title="oracle (re-rendered)",
        source="control",
        version=1,
        control=True,
        needs_oracle=True,
        matched=True,
        bidirectional=False,
    )
