"""Where a number came from: versions, commit, machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from casl_bench.cache.code_hash import installed_version
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


def collect_provenance(device: str, **measured: Any) -> Provenance:
    """Describe this process and the code it runs on a device; further fields as measured."""
    commit, dirty = git_state(Path(__file__).parent)
    return Provenance(
        package_version=installed_version("casl-bench") or "unknown",
        git_commit=commit,
        git_dirty=dirty,
        packages=package_versions(),
        device=device,
        platform=f"{platform.system()} {platform.machine()}",
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        # Records are passed on; the folders of a user's machine are nobody else's business.
        argv=tuple(Path(a).name if Path(a).is_absolute() else a for a in sys.argv),
        **measured,
    )


def package_versions() -> dict[str, str]:
    """Python and the installed ones of the packages that decide numbers → version."""
    found = {name: v for name in _PACKAGES if (v := installed_version(name)) is not None}
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
