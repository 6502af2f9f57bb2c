"""Control: the perfect edit the wrong way.

It is given images that have the attribute, and removes it where the concept asks to turn it on.
What is blind to direction cannot tell it from the oracle; a signed number must be negative.
"""

from __future__ import annotations

from typing import ClassVar

from casl_bench.methods.method import MethodInfo, register_method
from casl_bench.methods.pixel_editor import RerenderMethod


@register_method
class Inverted(RerenderMethod):
    """Re-render images that have the attribute without it."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="inverted",
        title="oracle, the wrong way",
        source="control",
        version=1,
        control=True,
        needs_oracle=True,
        on_present=True,
        bidirectional=False,
    )
