"""A run folder of two methods and a few controls, with made-up numbers: no network has run.

Tests of the report load this file by its path: those in a browser do, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from casl_bench.core.files import hash_bytes
from casl_bench.report.html.pages import Source
from casl_bench.results.edited_images import (
    FILE_NAME,
    LATENTS_FILE,
    EditedImages,
    LatentImages,
    find_latent_images,
    latents_to_bytes,
)
from casl_bench.results.record import (
    Agreement,
    Comparison,
    Cost,
    CurvePoint,
    ErrorInfo,
    FileRef,
    LevelResult,
    Measurement,
    Pair,
    Provenance,
    RunRecord,
    Sensitivity,
    Standing,
    SuiteRef,
)
from casl_bench.results.run_folder import RecordStore, write_jsonl
from casl_bench.results.score_table import ScoreTable
from casl_bench.results.stored_cells import cell_of

ATTRIBUTES = ("smiling", "hat", "pale")
SPREADS = (2.0, 0.5, 1.25)
"""σ of each attribute's logit."""
STRENGTHS = (0.5, 1.0)
SIDE, IMAGES = 16, 4

EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</style></title>$x$`|[a](b)",
)
"""Names that break out of whatever does not escape them: for a method, a concept, an attribute."""


def ok(value: float, half: float = 0.2) -> Measurement:
    return Measurement(status="ok", value=value, low=value - half, high=value + half, n=IMAGES)


class FakeRun:
    """Writes the cells of one data set.

    Args:
        folder: of the run.
        concepts: each of them an attribute.
        methods: two entrants.
        attributes: of the classifier.
        dataset: its name.
    """

    def __init__(
        self,
        folder: Path,
        concepts: Sequence[str] = ("smiling", "hat"),
        methods: tuple[str, str] = ("casl", "asyrp"),
        attributes: tuple[str, ...] = ATTRIBUTES,
        dataset: str = "rendered_faces",
    ) -> None:
        self.store, self.records = RecordStore(folder), list[RunRecord]()
        self.concepts, self.methods = tuple(concepts), methods
        self.attributes, self.dataset = attributes, dataset
        self._random = np.random.default_rng(0)

    def write(
        self, *, text: str = "cpu only", moved_identity: float = 0.0, curves: bool = True
    ) -> FakeRun:
        """All cells.

        Args:
            text: stands wherever a record has free text.
            moved_identity: what the control that may move nothing moves; other than 0 it is broken.
            curves: whether the entrants have measurements at several strengths.
        """
        more: dict[str, Any] = {} if curves else {"curve": ()}
        for concept in self.concepts:
            for place, method in enumerate(self.methods):
                self.edit(method, concept, levels=self._levels(reached=place == 0), **more)
            self.edit("oracle", concept, control=True, **more)
            self.edit("identity", concept, control=True,
                      measurements={"signed_target_change": ok(moved_identity),
                                    "epr_raw": Measurement.undefined("nothing moved")})  # fmt: skip
            for draw in (0, 1):
                self.edit("random_direction", concept, control=True, fit_seed=draw, **more)
            latents = latents_to_bytes(self._latents())
            ref = FileRef(file=LATENTS_FILE, sha256=hash_bytes(latents))
            self.put("probe", {LATENTS_FILE: latents}, method=self.methods[0], concept=concept,
                     flags=("h at t = 96",), images=ref,
                     measurements={"top_units.k1": ok(0.7), "top_units.k4": ok(0.9),
                                   "random_units.k1": ok(0.5), "random_units.k4": ok(0.6),
                                   "majority": ok(0.5)})  # fmt: skip
        self.put("edit", method="h_pca", concept=self.concepts[0], status="failed",
                 error=ErrorInfo(type="InputError", message=text))  # fmt: skip
        self.put("reconstruction", measurements={"psnr": ok(40.0)})
        self.put("sae", measurements={"sae.cosine": ok(0.98), "sae.l0": ok(31.0)})
        spreads = {f"classifier_a.spread/{a}": Measurement.of(s, IMAGES)
                   for a, s in zip(self.attributes, SPREADS, strict=True)}  # fmt: skip
        self.put("scorer", measurements={"classifier_a.accuracy": ok(0.99), **spreads})
        self.put("comparison", comparison=self._comparison(text))
        return self

    def edit(self, method: str, concept: str, **changes: Any) -> None:
        """A cell with pictures and scores, the further from the reconstruction the stronger."""
        size = 1.0 + len(method) / 8
        target = self.attributes.index(concept)
        effect = np.full(len(self.attributes), 0.1)
        effect[target] = size
        base = self._random.normal(0, 2, (1, IMAGES, len(self.attributes)))
        each = 1 + 0.2 * self._random.normal(0, 1, (IMAGES, 1))
        moved = np.array([s * effect * each * SPREADS for s in STRENGTHS])
        table = ScoreTable(
            tuple(f"test-{i}" for i in range(IMAGES)), STRENGTHS, self.attributes,
            ("classifier_a",), base, base, (base[0] + moved)[None],
        )  # fmt: skip
        drift = dict(zip(self.attributes, (moved[1].mean(axis=0) / SPREADS).tolist(), strict=True))
        files = {"scores.npz": table.to_npz(), FILE_NAME: self._images().to_bytes()}
        fields: dict[str, Any] = {
            "method": method, "concept": concept, "supervision": "text",
            "strength": STRENGTHS[1], "strength_chosen_on": "validation", "strengths": STRENGTHS,
            "measurements": {
                "epr_plus": ok(4.0 * size), "epr_floored": ok(3.0 * size), "epr_raw": ok(3.0),
                "epr_std": ok(0.9), "signed_target_change": ok(size), "flip_rate": ok(0.75, 0.1),
                "mean_collateral": ok(0.1, 0.05),
            },
            "curve": tuple(
                CurvePoint(strength=s, measurements={"signed_target_change": ok(s * size),
                                                     "epr_floored": ok(3.0 * size - s)})
                for s in (0.25, *STRENGTHS, 2.0)
            ),
            "curve_on": "validation", "judges": ("classifier_a",), "drift": drift,
            "cost": Cost(parameters=100, unet_calls=20, edit_unet_calls=2),
            "scorers": {"classifier_a": "a" * 64}, "backbone": "b" * 64,
            "scores": FileRef(file="scores.npz", sha256=hash_bytes(files["scores.npz"])),
            "images": FileRef(file=FILE_NAME, sha256=hash_bytes(files[FILE_NAME])),
        }  # fmt: skip
        self._keep(self._record("edit", **(fields | changes)), files)

    def put(self, kind: Any, files: dict[str, bytes] | None = None, **fields: Any) -> None:
        """A cell with these files."""
        self._keep(self._record(kind, **fields), files)

    def _keep(self, record: RunRecord, files: dict[str, bytes] | None) -> None:
        self.records.append(record)
        if record.kind != "comparison":
            self.store.write(cell_of(record), files)

    @property
    def source(self) -> Source:
        """Made-up numbers, with the pictures and scores of the folder."""
        return Source("run", tuple(self.records), self.store)

    def write_numbers(self, path: Path) -> Path:
        """The numbers alone."""
        write_jsonl(path, self.records)
        return path

    def _record(self, kind: Any, **fields: Any) -> RunRecord:
        provenance = Provenance(
            package_version="0", git_commit="c" * 40, git_dirty=False,
            packages={"numpy": "2"}, device="cpu", platform="test",
            started_at="2026-01-01T00:00:00+00:00", argv=("benchmark.py", "--methods", "all"),
        )  # fmt: skip
        common: dict[str, Any] = {
            "kind": kind, "world": "synth", "dataset": self.dataset, "dataset_revision": "r1",
            "suite": SuiteRef(name="standard", version=3), "seed": 0,
            "attributes": self.attributes, "provenance": provenance,
        }  # fmt: skip
        return RunRecord(**(common | fields))

    def _latents(self) -> list[LatentImages]:
        """Latent 1 responds to the left half of images 2 and 0, latent 3 to none."""
        codes = np.zeros((IMAGES, 4, 2, 2), np.float32)
        codes[2, 1, :, 0], codes[0, 1, 0, 0] = 4.0, 1.0
        pictures = self._random.integers(1, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
        return find_latent_images(codes, [1, 3], pictures)

    def _images(self) -> EditedImages:
        one = self._random.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
        edits = np.stack([255 - one, one // 2])
        ids = tuple(f"test-{i}" for i in range(IMAGES))
        return EditedImages(ids, STRENGTHS, one, one, edits, 255 - one // 2)

    def _levels(self, reached: bool) -> tuple[LevelResult, ...]:
        quarter, half = ("effect_25", 0.5), ("effect_50", 1.0)
        found = [
            LevelResult(
                name=name, goal=goal, unit="sd", status="reached", strength=goal, largest=2.1,
                measurements={"signed_target_change": ok(goal), "mean_collateral": ok(0.1)},
            )
            for name, goal in (quarter, half)
        ]  # fmt: skip
        if not reached:
            name, goal = half
            found[1] = LevelResult(
                name=name, goal=goal, unit="sd", status="not_reached", largest=0.8
            )
        return tuple(found)

    def _comparison(self, text: str) -> Comparison:
        best, other = self.methods
        standings = tuple(
            Standing(method=name, epr_plus=ok(value, 2.0), epr_plus_here=ok(value, 1.0),
                     rank_low=place, rank_high=2, group="a", reached=2, wrong_way=0, cells=2,
                     fit_sd=Measurement.undefined("a single fit", n=1))
            for place, (name, value) in enumerate(((best, 6.0), (other, 3.0)), start=1)
        )  # fmt: skip
        return Comparison(
            level="effect_50", datasets=(self.dataset,),
            concepts=tuple(f"{self.dataset}/{c}" for c in self.concepts), standings=standings,
            pairs=(Pair(a=best, b=other, difference=ok(0.5), p=0.2, p_holm=0.2),),
            agreements=(Agreement(scorer=text, order=(best, other), tau=1.0, n=2),),
            sensitivity=(Sensitivity(kind="concept", variants=2, holds=2, broken_by=()),),
            incomplete=("h_pca",),
        )  # fmt: skip
