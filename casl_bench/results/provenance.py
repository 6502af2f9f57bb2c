"""Where a number came from: versions, commit, machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from casl_bench.results.record import Provenance

# The packages whose version can move a number.
_PACKAGES = (
    "torch",
    "diffusers",
    "open_clip_torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "safetensors",
    "pillow",
    "pydantic",
)


def collect_provenance(
    *,
    device: str,
    argv: Sequence[str] | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    seconds: Mapping[str, float] | None = None,
    unet_passes: Mapping[str, float] | None = None,
    started_at: datetime | None = None,
) -> Provenance:
    """Describe this process and the code it runs.

    Args:
        device: where the networks ran, e.g. "cpu".
        argv: the command line; default that of this process.
        batch_size: images at once.
        threads: CPU threads of a matrix product.
        seconds: wall time a phase.
        unet_passes: U-Net passes a phase, in images.
        started_at: with time zone; default now.
    """
    commit, dirty = git_state(Path(__file__).parent)
    return Provenance(
        package_version=_version("casl-bench") or "unknown",
        git_commit=commit,
        git_dirty=dirty,
        packages=package_versions(),
        device=device,
        platform=f"{platform.system()} {platform.machine()}",
        started_at=(started_at or datetime.now(UTC)).isoformat(timespec="seconds"),
        seconds=dict(seconds or {}),
        unet_passes=dict(unet_passes or {}),
        argv=without_folders(sys.argv if argv is None else argv),
        batch_size=batch_size,
        threads=threads,
    )


def without_folders(argv: Sequence[str]) -> tuple[str, ...]:
    """A command line with absolute paths cut to their last part.

    Records are passed on; the folders of somebody's machine are nobody else's business.
    """
    return tuple(Path(a).name if Path(a).is_absolute() else a for a in argv)


def package_versions() -> dict[str, str]:
    """Python and the installed ones of the packages that decide numbers → version."""
    found = {name: v for name in _PACKAGES if (v := _version(name)) is not None}
    return {"python": platform.python_version(), **found}


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit and whether tracked files differ from it; (None, None) outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    # A package installed into some other project's checkout is not that project's commit.
    if commit is None or _git(folder, "ls-files", "--error-unmatch", __file__) is None:
        return None, None
    status = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return commit, None if status is None else bool(status)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
