"""What a user may say of a domain: where data and weights are, and which ones are taken."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from casl_bench.core.errors import UsageError
from casl_bench.core.option_types import expand_home, local_path

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


WEIGHTS_VARIABLE = "CASL_BENCH_WEIGHTS"


def default_weights_root() -> Path:
    """`$CASL_BENCH_WEIGHTS`, or a folder of the user's cache. UsageError where neither is known."""
    if named := os.environ.get(WEIGHTS_VARIABLE, "").strip():
        return local_path(named, WEIGHTS_VARIABLE)
    return local_path("~/.cache/casl_bench/weights", hint=f"set {WEIGHTS_VARIABLE}")


class DomainOptions(BaseModel):
    """Options of photographs; rendered domains have no use for them.

    Attributes:
        data_root: folder of the data: of one data set, or holding one folder per data set, by name.
        data_id: a `datasets` id instead of a folder.
        weights_root: where weights files are looked for.
        backbone: data set → folder, file or Hub id of its backbone; under "" for whichever.
        guide_clip: ARCHITECTURE:TAG or ARCHITECTURE:FILE of the CLIP that methods train against.
        score_clip: likewise, of the CLIP that scores.
        zero_shot_clip: likewise, of the CLIP that scores attributes where there are no labels.
        classifiers: files of attribute classifiers, the primary one first.
        on_bad_image: stop at an unusable image, or leave it out and count it.
        allow_download: whether the Hub, and the addresses of known files, may be asked for what is
            not here.
        compiled: whether both halves of the U-Net are compiled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_root: Path | None = None
    data_id: str | None = None
    weights_root: Path | None = None
    backbone: dict[str, str] = {}
    guide_clip: str | None = None
    score_clip: str | None = None
    zero_shot_clip: str | None = None
    classifiers: tuple[Path, ...] = ()
    on_bad_image: OnBadImage = "error"
    allow_download: bool = False
    compiled: bool = False

    @property
    def weights(self) -> Path:
        """The folder of weights."""
        return self.weights_root or default_weights_root()

    def source(self, dataset: str) -> DataSource:
        """Where a data set's files are."""
        root = self.data_root
        if root is not None and (root / dataset).is_dir():
            root = root / dataset
        return DataSource(root, self.data_id, self.on_bad_image, self.allow_download)

    def backbone_of(self, dataset: str) -> str | None:
        """Where a data set's backbone is, if the user said so."""
        return self.backbone.get(dataset, self.backbone.get(""))

    def unused_by_rendered(self) -> list[str]:
        """Options given that a rendered domain would silently ignore, as on the command line."""
        given = {
            "--data-id": self.data_id,
            "--backbone": self.backbone,
            "--guide-clip": self.guide_clip,
            "--score-clip": self.score_clip,
            "--zero-shot-clip": self.zero_shot_clip,
            "--classifier": self.classifiers,
            "--compiled": self.compiled,
        }
        return [name for name, value in given.items() if value]


def parse_assignments(values: tuple[str, ...], option: str) -> dict[str, str]:
    """`NAME=VALUE` → {NAME: VALUE}, a bare `VALUE` → {"": VALUE}.

    A value that begins with `~` is below the user's home. Raises UsageError where a name is given
    twice, or a value is empty.
    """
    found: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        name, value = (name, value) if equals else ("", text)
        if not value or name in found:
            raise UsageError(
                f"{option} {text}: {'no value' if not value else 'given twice'}",
                hint=f"write {option} NAME=VALUE once a name",
            )
        found[name] = expand_home(value, option)
    return found
