"""Settings of all tests. Fixtures of one area live beside its tests."""

from __future__ import annotations

from hypothesis import settings

# A red build must mean something: examples are drawn the same way every time, and a slow machine
# is no fault.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
