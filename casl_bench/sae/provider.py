"""How a method asks for the SAE: it is trained once and shared by every method that uses one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from casl_bench.sae.h_space_sae import HSpaceSae


@runtime_checkable
class SaeProvider(Protocol):
    """Trains or loads the one SAE of a (backbone, data set, settings), by content key."""

    def get(self) -> HSpaceSae:
        """The SAE. The first call may train it (a minute); later ones return the same object."""
        ...
