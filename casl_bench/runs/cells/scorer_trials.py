"""Classifiers on trial in a run: on originals, on reconstructions and on edits that are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.seeding import derive_seed
from casl_bench.images.dataset import SupportsOracle
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.scorer_trial import Response, flipped_labels, leakage, marks, response
from casl_bench.records.record import Measurement
from casl_bench.runs.cells.edit_cells import EditCells
from casl_bench.runs.cells.record_parts import over_images
from casl_bench.runs.cells.scoring import from_8_bits, to_8_bits
from casl_bench.runs.shared_work.artefacts import Artefacts

TRIAL_IMAGES = 2
"""Test images on which every attribute is flipped, for each one that a concept edits."""

TRIAL_RESAMPLES = 200
"""Of the images, for the intervals of marks: a mark is computed anew each time."""

Rows = NDArray[np.intp]


class ScorerTrials:
    """Tries every classifier of one data set on its test images.

    Args:
        artefacts: the images.
        cells: for the scorers and their spreads.
    """

    def __init__(self, artefacts: Artefacts, cells: EditCells) -> None:
        self.artefacts, self.world = artefacts, artefacts.world
        self.scorers, self.yardstick = cells.scorers, cells.yardstick
        self.attributes = self.world.dataset.card.attributes

    def measurements(self) -> dict[str, Measurement]:
        """Marks by classifier; where nobody knows the labels, its agreement with the first one.

        `NAME.accuracy`, `NAME.calibration_error`, each also `_on_reconstructions` and
        `_on_oracle_edits`; `NAME.worst_attribute`; of known flips `NAME.flips_seen`, `.slope`,
        `.correlation`, `.leakage` (in sd); `NAME.slope/ATTRIBUTE`, `NAME.leakage/ATTRIBUTE` and
        `NAME.spread/ATTRIBUTE`, the unit of every sd.

        Raises:
            InvalidBenchmarkError: if one is under the world's floor on an attribute.
        """
        test = self.artefacts.test
        truth = self.artefacts.presence(test).numpy()
        labelled = test.batch.attributes is not None
        source, reconstruction = self.scorers.unedited_logits(test.inversions)
        edits = self._oracle_logits() if labelled else None
        found: dict[str, Measurement] = {}
        for k, name in enumerate(self.scorers.names):
            if labelled:
                self._check_floor(name, source[k], truth)
            what = "accuracy" if labelled else "agreement"
            found |= self._marks(name, what, "", source[k], truth)
            found |= self._marks(name, what, "_on_reconstructions", reconstruction[k], truth)
            worst = int(((source[k] > 0) == truth).mean(0).argmin())
            found[f"{name}.worst_attribute"] = self._over_images(
                lambda rows, k=k, w=worst: float(((source[k] > 0) == truth)[rows, w].mean()),  # type: ignore[misc]
                len(truth), "share", f"{name} worst",
            )  # fmt: skip
            spread = self.yardstick.spreads[k]
            if edits is not None:
                found |= self._known_flips(name, source[k], edits[k], truth, spread)
            n = len(self.artefacts.train.batch)
            found |= {
                f"{name}.spread/{a}": Measurement.of(float(v), n, "logit")
                for a, v in zip(self.attributes, spread, strict=True)
            }
        return found

    def _check_floor(self, name: str, logits: Array, truth: NDArray[np.bool_]) -> None:
        accuracy = ((logits > 0) == truth).mean(0)
        worst = int(accuracy.argmin())
        if accuracy[worst] < self.world.accuracy_floor:
            raise InvalidBenchmarkError(
                f"classifier '{name}' is right on {accuracy[worst]:.3f} of images for "
                f"'{self.attributes[worst]}', under its floor of {self.world.accuracy_floor}",
                mend="use another classifier, or train it anew",
            )

    def _oracle_logits(self) -> Array | None:
        """[K, A, m, A] of the first m test images with each attribute flipped."""
        dataset = self.world.dataset
        if not isinstance(dataset, SupportsOracle):
            return None
        count = TRIAL_IMAGES * self.artefacts.suite.test_images_per_concept
        ids = self.artefacts.test.batch.image_ids[:count]
        flipped = [
            self.scorers.logits(from_8_bits(to_8_bits(dataset.oracle(ids, attribute))))
            for attribute in self.attributes
        ]
        return np.stack(flipped, axis=1)

    def _marks(
        self, name: str, what: str, where: str, logits: Array, truth: NDArray[np.bool_]
    ) -> dict[str, Measurement]:
        right = ((logits > 0) == truth).mean(1)
        found = {
            f"{name}.{what}{where}": self._over_images(
                lambda rows: float(right[rows].mean()), len(right), "share", f"{name} {what}{where}"
            )
        }
        if what == "accuracy":
            found[f"{name}.calibration_error{where}"] = self._over_images(
                lambda rows: marks(logits[rows], truth[rows]).mean_calibration_error,
                len(right), "share", f"{name} calibration{where}",
            )  # fmt: skip
        return found

    def _known_flips(
        self,
        name: str,
        source: Array,
        edits: Array,
        truth: NDArray[np.bool_],
        spread: Array,
    ) -> dict[str, Measurement]:
        """What a classifier says of edits that change one attribute and nothing else."""
        m = edits.shape[1]
        before, labels = source[:m], truth[:m]
        edited, a = flipped_labels(labels), len(self.attributes)
        found = self._marks(
            name, "accuracy", "_on_oracle_edits", edits.reshape(-1, a), edited.reshape(-1, a)
        )

        def answer(rows: Rows) -> Response:
            return response(before[rows], edits[:, rows], labels[rows], spread)

        summaries: dict[str, tuple[str, Callable[[Rows], float]]] = {
            "flips_seen": ("share", lambda rows: float(answer(rows).flips_seen.mean())),
            "slope": ("ratio", lambda rows: float(answer(rows).slope.mean())),
            "correlation": ("correlation", lambda rows: answer(rows).correlation),
            "leakage": (
                "sd",
                lambda rows: float(
                    leakage(before[rows], edits[:, rows], spread).sum() / (a * (a - 1))
                ),
            ),
        }
        for key, (unit, statistic) in summaries.items():
            found[f"{name}.{key}"] = self._over_images(statistic, m, unit, f"{name} {key}")
        whole = answer(np.arange(m))
        for j, attribute in enumerate(self.attributes):
            slope, leak = float(whole.slope[j]), float(whole.mean_leakage[j])
            found[f"{name}.slope/{attribute}"] = (
                Measurement.of(slope, m, "ratio")
                if np.isfinite(slope)
                else Measurement.undefined("the images lack one class", m, "ratio")
            )
            found[f"{name}.leakage/{attribute}"] = Measurement.of(leak, m, "sd")
        return found

    def _over_images(
        self, statistic: Callable[[Rows], float], n: int, unit: str, purpose: str
    ) -> Measurement:
        seed = derive_seed(self.artefacts.config.seed, "trial", purpose)
        return over_images(statistic, n, unit, seed, TRIAL_RESAMPLES)
