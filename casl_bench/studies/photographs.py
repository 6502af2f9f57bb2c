"""Is a model of photographs good enough to compare methods on? Its gate.

A small U-Net of one's own must give held-out photographs back, and the mean-difference directions
of its h-space must flip what a classifier sees, before a ranking on it says anything about methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate
from torch import Tensor

from casl_bench.core.errors import UsageError
from casl_bench.diffusion.inversion import Inversions, invert
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.domains.dataset import ImageBatch
from casl_bench.domains.domain import Domain
from casl_bench.methods.h_space_editor import EditWindow, generate_edits
from casl_bench.metrics.image_similarity import psnr
from casl_bench.models.backbone import Backbone
from casl_bench.models.noise_schedule import power_timesteps

PLAIN_DB, EXTRAPOLATED_DB = 27.0, 40.0
"""Either will do: decibels of plain inversion, or of extrapolated inversion."""
FLIPS: Mapping[str, float] = {"blond_hair": 0.5, "male": 0.5, "smiling": 0.3}
"""Attribute → share of held-out images without it that a direction flips at its best strength."""
STRENGTHS = (1.0, 2.0, 3.0, 4.0, 6.0)
WINDOW = EditWindow(t_edit=350)


@dataclass(frozen=True)
class PhotographGate:
    """What was measured."""

    dataset: str
    revision: str
    backbone: str  # hash of its weights
    classifier: str  # name of the one that decides
    images: int  # held-out ones, of each figure
    plain_db: float
    extrapolated_db: float
    flips: dict[str, float]

    @property
    def holds(self) -> bool:
        """Whether inversion and every direction are good enough."""
        inverts = self.plain_db >= PLAIN_DB or self.extrapolated_db >= EXTRAPOLATED_DB
        return inverts and all(self.flips[name] >= least for name, least in FLIPS.items())

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        return {**asdict(self), "holds": self.holds}

    def to_markdown(self) -> str:
        """A table, and whether the gate holds."""
        rows = [
            ["inversion, plain", f"{self.plain_db:.1f} dB", f"≥ {PLAIN_DB:g}, or"],
            ["inversion, extrapolated", f"{self.extrapolated_db:.1f} dB", f"≥ {EXTRAPOLATED_DB:g}"],
            *([f"mean difference flips {name}", f"{self.flips[name]:.2f}", f"≥ {least:g}"]
              for name, least in FLIPS.items()),
        ]  # fmt: skip
        table = tabulate(rows, headers=["", "measured", "asked for"], tablefmt="github")
        verdict = "holds" if self.holds else "is missed"
        return (
            f"{table}\n\n{self.images} held-out images of `{self.dataset}` ({self.revision}); "
            f"`{self.classifier}` decides. The gate {verdict}.\n"
        )


def measure_gate(
    domain: Domain,
    *,
    steps: int = 28,
    power: float = 1.5,
    train_images: int = 256,
    images: int = 64,
    pool: int = 400,
    say: Callable[[str], None] = lambda line: None,
) -> PhotographGate:
    """Measure on the first test images: `images` of them, and as many that lack each attribute.

    The walk has `steps` timesteps, int(linspace(0, 1, steps) ** power * t_max). Raises UsageError
    where the attributes are unknown, or of the `pool` too few images lack one.
    """
    backbone, attributes = domain.backbone, domain.dataset.card.attributes
    timesteps = power_timesteps(steps, backbone.schedule.num_timesteps - 1, power)
    train, test = domain.dataset.load("train", train_images), domain.dataset.load("test", pool)
    if train.attributes is None or test.attributes is None:
        raise UsageError(
            "the gate needs labels", where=domain.dataset.card.name, hint="give the annotation"
        )
    columns = {name: attributes.index(name) for name in FLIPS}
    lacking = {name: (~test.attributes[:, c]).nonzero().flatten().tolist()[:images]
               for name, c in columns.items()}  # fmt: skip
    if short := [name for name, rows in lacking.items() if len(rows) < images]:
        raise UsageError(
            f"only {len(lacking[short[0]])} of {pool} test images lack '{short[0]}'",
            hint=f"{images} are needed",
        )
    say(f"plain inversion of {images} images")
    plain = _inverted(backbone, test.take(range(images)), timesteps, False)
    used = sorted({*range(images), *(row for rows in lacking.values() for row in rows)})
    say(f"extrapolated inversion of {len(used)} images")
    extrapolated = _inverted(backbone, test.take(used), timesteps, True)
    say(f"h of {train_images} training images")
    store = TrajectoryStore.create(
        None, train.image_ids, timesteps, train.pixels.shape[1:], backbone.h_shape
    )
    _inverted(backbone, train, timesteps, True, store)
    flips = {}
    for name, column in columns.items():
        say(f"edits towards {name}")
        own = extrapolated.take([used.index(row) for row in lacking[name]])
        flips[name] = _flipped(domain, store, train.attributes[:, column], own, column)
    return PhotographGate(
        domain.dataset.card.name,
        domain.dataset.card.revision,
        backbone.weights_hash,
        domain.classifiers[0].info.name,
        images,
        _decibels(plain),
        _decibels(extrapolated.take(range(images))),
        flips,
    )


def _inverted(
    backbone: Backbone,
    batch: ImageBatch,
    timesteps: Sequence[int],
    extrapolate: bool,
    store: TrajectoryStore | None = None,
) -> Inversions:
    return invert(
        backbone, batch.image_ids, batch.pixels, timesteps,
        collect=None if store is None else store.record, extrapolate=extrapolate,
    )  # fmt: skip


def _decibels(inversions: Inversions) -> float:
    return float(psnr(inversions.reconstruction.numpy(), inversions.x_0.numpy()).mean())


def _flipped(
    domain: Domain, store: TrajectoryStore, has: Tensor, inversions: Inversions, column: int
) -> float:
    """Share of images that the mean difference of h flips at its best strength."""
    backbone = domain.backbone
    directions = {
        t: (store.h(s)[has].mean(0) - store.h(s)[~has].mean(0)).to(backbone.device)
        for s, t in enumerate(store.timesteps)
        if WINDOW.edits(t)
    }
    edits = generate_edits(
        backbone, inversions, STRENGTHS, lambda h, t, temb: directions[t].expand_as(h), WINDOW, 0
    )
    shares = [
        float((domain.classifiers[0].logits(images.clamp(-1, 1))[:, column] > 0).float().mean())
        for images in edits
    ]
    return max(shares)
