"""Photographs on disk and the models for them. A guest: the core never imports it."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
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


def hub_folder(hub_id: str, files: Sequence[str], allow_download: bool, missing: str = "") -> Path:
    """Folder of the Hub's local cache with these files (names or patterns) of a repository.

    The Hub is asked only if `allow_download`. Some of the files may be absent. `missing` begins the
    message where there is no such folder. Raises UsageError if the repository is not in the cache
    and may not be or cannot be fetched.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        return Path(
            huggingface_hub.snapshot_download(
                hub_id, allow_patterns=list(files), local_files_only=not allow_download
            )
        )
    except RepositoryNotFoundError as error:
        raise UsageError(f"the Hub has no '{hub_id}', or not for everybody") from error
    except (OSError, ValueError, HfHubHTTPError) as error:
        if not allow_download:
            missing = missing or f"'{hub_id}' is neither a path here nor"
            raise UsageError(
                f"{missing} in the Hub's local cache", hint="--allow-download lets it be fetched"
            ) from error
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"'{hub_id}' cannot be fetched from the Hub: {line}") from error
