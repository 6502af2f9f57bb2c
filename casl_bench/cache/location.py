"""Where the cache lies: by option, environment variable, or in the user's own folder."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path

from casl_bench.core.local_folder import local

CACHE_VARIABLE = "CASL_BENCH_CACHE"
"""Environment variable with the cache's folder."""


def default_cache() -> Path:
    """The folder of `CASL_BENCH_CACHE`, else `casl-bench` in the user's cache folder.

    Raises:
        UsageError: if the variable holds an address.
    """
    named = local(os.environ.get(CACHE_VARIABLE, "").strip(), CACHE_VARIABLE)
    return Path(named).absolute() if named else user_cache_path("casl-bench", appauthor=False)


def own_cache(run: Path) -> Path:
    """The folder of a run that shares nothing; its name keeps it out of what is published."""
    return run / ".cache"


def cache_of(run: Path) -> Path:
    """Where the artefacts of a run folder are looked for: in its own cache, if it has one."""
    own = own_cache(run)
    return own if own.is_dir() else default_cache()
