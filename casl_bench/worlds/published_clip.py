"""A published CLIP by its name: from a file, the Hub's local cache, or the Hub where allowed."""

from __future__ import annotations

from pathlib import Path

import open_clip
from huggingface_hub import try_to_load_from_cache

from casl_bench.backbones.clip_model import ClipModel
from casl_bench.core.errors import UsageError
from casl_bench.worlds.weights_table import clip_place, found_at

_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def find_clip(spec: str, root: Path) -> str | None:
    """The weights file of ARCHITECTURE:TAG or ARCHITECTURE:FILE; None where it is not here.

    Raises:
        UsageError: the text is neither, or names a file that is not there.
    """
    architecture, tag = _parts(spec)
    if Path(tag).is_file():
        return tag
    if "/" in tag or Path(tag).suffix:
        raise UsageError("no such weights file", where=tag, mend="give ARCHITECTURE:FILE")
    local = found_at(root, clip_place(spec))
    if local is not None:
        return str(local)
    hub = (open_clip.get_pretrained_cfg(architecture, tag) or {}).get("hf_hub", "").strip("/")
    for name in _FILES if hub else ():
        cached = try_to_load_from_cache(hub, name)
        if isinstance(cached, str):
            return cached
    return None


def load_clip(spec: str, root: Path, allow_download: bool) -> ClipModel:
    """A CLIP by its name.

    Args:
        spec: ARCHITECTURE:TAG or ARCHITECTURE:FILE.
        root: folder of weights.
        allow_download: fetch a tag's weights where they are not here.

    Raises:
        UsageError: there is no such architecture or tag, or its weights are not here.
        InvalidBenchmarkError: the file is damaged, unsafe or of another architecture.
    """
    architecture, tag = _parts(spec)
    found = find_clip(spec, root)
    if found is None and not allow_download:
        raise UsageError(
            f"weights of the CLIP {spec} are missing",
            where=f"{root / clip_place(spec)}.safetensors",
            mend="put them there, see `casl-bench weights`, or --allow-download",
        )
    if found is None and tag not in open_clip.list_pretrained_tags_by_model(architecture):
        known = ", ".join(open_clip.list_pretrained_tags_by_model(architecture))
        raise UsageError(f"unknown tag '{tag}' of {architecture}", mend=f"known: {known}")
    return ClipModel.from_open_clip(architecture, found or tag)


def _parts(spec: str) -> tuple[str, str]:
    architecture, colon, tag = spec.partition(":")
    if not (architecture and colon and tag):
        raise UsageError(
            f"'{spec}' names no CLIP", mend="write ARCHITECTURE:TAG or ARCHITECTURE:FILE"
        )
    return architecture, tag
