"""Where the files of a data set are, and what is done with a file that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

OnBadImage = Literal["error", "skip"]


@dataclass(frozen=True)
class DataSource:
    """A user's copy of a real data set.

    Attributes:
        root: the folder that holds it, in one of its published layouts; None where none was given.
        hub_id: a `datasets` id, local or on the Hub, instead of a folder.
        on_bad_image: stop at a file that is no usable image, or leave it out and count it.
        allow_download: whether the Hub may be asked for what is not on disk.
    """

    root: Path | None = None
    hub_id: str | None = None
    on_bad_image: OnBadImage = "error"
    allow_download: bool = False
