"""Seeds that belong to a purpose, never to a place in a batch."""

from __future__ import annotations

import hashlib


def derive_seed(run_seed: int, purpose: str, *keys: str | int) -> int:
    """A 63-bit seed from (run seed, purpose, keys) by SHA-256.

    Stable over Python versions, platforms, batch sizes, worker counts and method order.
    """
    text = "\x1f".join([str(run_seed), purpose, *map(str, keys)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
