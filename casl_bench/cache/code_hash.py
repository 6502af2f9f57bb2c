"""What computed an artifact: hashes of the source that a stage runs through, and its libraries.

Declared versions are for readers of records, who must know what may be compared. A cache must
also notice changes that no version declares yet: the gate runs two revisions on one machine, and
a plugin is edited between two runs.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from uuid import uuid4

from casl_bench.core.registry import BASELINES

PACKAGE = Path(__file__).parents[1]

INVERSION_CODE = ("core", "models", "domains", "diffusion", "photos", "runs/artifacts.py")
SAE_CODE = (*INVERSION_CODE, "sae")
FIT_CODE = (*SAE_CODE, "methods", "runs/fits.py")
PACKAGE_CODE = (".",)
"""Folders and files of the package that a stage's result depends on, stage by stage."""

_LIBRARIES = ("torch", "numpy", "diffusers", "open_clip_torch", "peft", "scikit-learn", "scipy")


@lru_cache
def code_hash(parts: tuple[str, ...]) -> str:
    """SHA-256 of the Python sources of parts of this package, and of their JSON, hex.

    JSON is what the cards of shipped models say beside their weights, tuned settings and the like.
    Parts are folders or files, relative to the package.
    """
    places = [PACKAGE / part for part in sorted(set(parts))]
    return _hash_of(PACKAGE, places, ("*.py", "*.json"))


def source_hash(what: object) -> str:
    """SHA-256 of the source that a class, a function or an object comes from, hex.

    That is its whole package where it is another's, its file where it is a single one, and nothing
    more than a mark where it is of this package, whose stages are hashed by `code_hash`. What has
    no source file is like nothing else, and never shared between processes.
    """
    module = _module_of(what)
    if _is_own(module):
        return "own"
    return source_to_compare(what) or _no_source(module)


def source_to_compare(what: object) -> str | None:
    """`source_hash` where another process may find the same or another one; else None."""
    module = _module_of(what)
    if _is_own(module):
        return None
    parts = module.split(".")
    if parts[0] == PACKAGE.name:
        return code_hash(("conformance",))
    if parts[0] == BASELINES and len(parts) > 1:
        parts = parts[:2]  # baselines do not import each other
    else:
        outer = sys.modules.get(parts[0])
        if getattr(outer, "__file__", None):
            parts = parts[:1]
    # A program read from standard input has a name, `<stdin>`, and no file.
    file = Path(getattr(sys.modules.get(".".join(parts)), "__file__", None) or "")
    return _source_of(file) if file.is_file() else None


@lru_cache
def environment() -> dict[str, str]:
    """What may change a last bit: versions of the libraries and the processor's kind."""
    found = {"machine": platform.machine(), "python": platform.python_version()}
    return found | {name: installed_version(name) or "absent" for name in _LIBRARIES}


def installed_version(name: str) -> str | None:
    """Of a package; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _module_of(what: object) -> str:
    return getattr(what, "__module__", None) or ""


def _is_own(module: str) -> bool:
    parts = module.split(".")
    return parts[0] == PACKAGE.name and parts[1:2] != ["conformance"]


@lru_cache
def _source_of(file: Path) -> str:
    root = file.parent if file.name == "__init__.py" else file
    return _hash_of(root.parent, [root])


@lru_cache
def _no_source(module: str) -> str:
    return f"{module} {uuid4()}"


def _hash_of(root: Path, places: Sequence[Path], kinds: Sequence[str] = ("*.py",)) -> str:
    digest = hashlib.sha256()
    for place in places:
        inside = sorted(path for kind in kinds for path in place.rglob(kind))
        for path in inside if place.is_dir() else [place]:
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}|{len(content)}|".encode())
            digest.update(content)
    return digest.hexdigest()
