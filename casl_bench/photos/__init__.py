"""Photographs on disk and the models for them. A guest: the core never imports it."""

from importlib import import_module
from typing import Any

from casl_bench.core.errors import UsageError


def extra_package(name: str, needed_by: str, where: str = "") -> Any:
    """A package of the extra `real`. Raises UsageError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"{needed_by} needs the package {name.replace('_', '-')}",
            where=where,
            hint="pip install 'casl-bench[real]'",
        ) from error
