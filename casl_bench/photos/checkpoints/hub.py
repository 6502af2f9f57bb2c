"""A backbone from wherever it is kept: a folder, a published file, the Hub.

The Hub is asked only where that is allowed; otherwise its local cache must have the network.
"""

from __future__ import annotations

import re
from pathlib import Path

from casl_bench.core.errors import UsageError
from casl_bench.models.backbone import Backbone
from casl_bench.models.diffusers_folder import (
    OWN_FILE,
    SAFE_WEIGHTS,
    SCHEDULER_FILE,
    SCHEDULER_FOLDERS,
    TORCH_WEIGHTS,
    UNET_FOLDERS,
    is_diffusers_folder,
    read_diffusers_folder,
)
from casl_bench.models.unet import CONFIG_FILE, load_folder
from casl_bench.photos.checkpoints.convert import convert

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def open_backbone(
    place: str | Path,
    *,
    name: str,
    micro_batch: int,
    allow_download: bool = False,
    config: str | Path | None = None,
    image_size: int | None = None,
    head_channels: int | None = None,
) -> Backbone:
    """The backbone kept at a place, whichever kind of place it is.

    Args:
        place: a folder of ours or of diffusers, a published checkpoint file, or an id on the
            Hugging Face Hub (owner/name).
        name: of the backbone, as in a table.
        micro_batch: rows of every forward pass.
        allow_download: may ask the Hub; else only its local cache.
        config: and the following: what a checkpoint file does not tell, see `convert`.
        image_size: side of the image, pixels.
        head_channels: channels of an attention head, ADM only.

    Raises:
        UsageError: if there is nothing at the place, or it must be downloaded and may not be.
        InvalidBenchmarkError: if what is there cannot be read or run.
    """
    path = Path(place)
    if path.is_file():
        made = convert(
            path, name=name, image_size=image_size, config=config, head_channels=head_channels
        )
        found, unet = made.config, made.unet
    else:
        if not path.exists() and _HUB_ID.fullmatch(str(place)):
            path = fetch_from_hub(str(place), allow_download)
        if str(place) and is_diffusers_folder(path):
            found, unet = read_diffusers_folder(path)
        elif str(place) and (path / CONFIG_FILE).exists():
            found, unet = load_folder(path)
        else:
            raise UsageError(
                "no backbone is there",
                where=str(place),
                mend="give a folder with a config.json, a checkpoint file, or owner/name of a "
                "network on the Hub",
            )
    return Backbone(found.model_copy(update={"name": name, "micro_batch": micro_batch}), unet)


def fetch_from_hub(hub_id: str, allow_download: bool) -> Path:
    """Folder of the local cache with a network's files.

    Args:
        hub_id: owner/name.
        allow_download: may ask the Hub.

    Raises:
        UsageError: if it is not in the cache and may not be or cannot be fetched.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    wanted = [OWN_FILE, *(_below(UNET_FOLDERS, CONFIG_FILE))]
    wanted += _below(SCHEDULER_FOLDERS, SCHEDULER_FILE)
    safe = _below(UNET_FOLDERS, SAFE_WEIGHTS)
    try:
        for weights in (safe, _below(UNET_FOLDERS, TORCH_WEIGHTS)):
            folder = snapshot_download(
                hub_id, allow_patterns=[*wanted, *weights], local_files_only=not allow_download
            )
            # The same weights lie beside each other in both forms: one of them is enough.
            if any((Path(folder) / file).exists() for file in weights):
                break
    except RepositoryNotFoundError as error:
        raise UsageError(f"the Hub has no '{hub_id}', or not for everybody") from error
    except (OSError, ValueError, HfHubHTTPError) as error:
        if not allow_download:
            raise UsageError(
                f"'{hub_id}' is neither a path here nor in the Hub's local cache",
                mend="--allow-download lets it be fetched",
            ) from error
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"'{hub_id}' cannot be fetched from the Hub: {line}") from error
    return Path(folder)


def _below(folders: tuple[str, ...], file: str) -> list[str]:
    return [f"{folder}/{file}" if folder else file for folder in folders]
