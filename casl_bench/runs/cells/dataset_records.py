"""Records of a data set as a whole: scorers on trial, reconstruction, SAE, probe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from casl_bench.core.seeding import derive_seed
from casl_bench.images.dataset import Concept, Split
from casl_bench.inversion.ddim import ddim_generation
from casl_bench.methods.method import SupportsLatentRanking
from casl_bench.metrics.arrays import Array
from casl_bench.metrics.probe_accuracy import (
    ProbeData,
    ProbeResult,
    RawProbe,
    majority_probe,
    pooled_features,
    probe_top_k,
    unit_features,
)
from casl_bench.metrics.reconstruction import attribute_agreement, noise_statistics, psnr
from casl_bench.records.record import Cost, Kind, Measurement, RunRecord
from casl_bench.runs.cells.edit_cells import EditCells
from casl_bench.runs.cells.record_parts import common_fields, over_images, provenance
from casl_bench.runs.cells.scorer_trials import ScorerTrials
from casl_bench.runs.cells.scoring import from_8_bits, to_8_bits
from casl_bench.runs.planning.config import DOWNSTREAM_IMAGES
from casl_bench.runs.planning.plan import KEY_ARTEFACT
from casl_bench.runs.shared_work.artefacts import Artefacts, InversionCost
from casl_bench.runs.shared_work.fits import FitSpent
from casl_bench.runs.watching.stopwatch import Stopwatch
from casl_bench.sae.sae_metrics import downstream_error, sae_quality
from casl_bench.worlds.world import CountsBadImages, FindsFaces

PROBE_TIMESTEP = 100
"""The probe reads h at the visited timestep nearest to this; attributes fade as t grows."""


class DatasetRecords:
    """Makes the records that concern no single edit.

    Args:
        artefacts: what all cells share.
        cells: for its scorers and fitted methods.
    """

    def __init__(self, artefacts: Artefacts, cells: EditCells) -> None:
        self.artefacts, self.cells = artefacts, cells
        self.world, self.config = artefacts.world, artefacts.config

    def scorer(self, key: str) -> RunRecord:
        """Every classifier on trial, see `ScorerTrials`.

        Raises:
            InvalidBenchmarkError: if one is under its floor: no table may rest on it.
        """
        watch = Stopwatch(self.artefacts.progress.costs)
        with watch.phase("score"):
            found = ScorerTrials(self.artefacts, self.cells).measurements()
        return self._record("scorer", key, found, watch)

    def reconstruction(self, key: str) -> RunRecord:
        """How well inversion and generation give the test images back."""
        watch = Stopwatch(self.artefacts.progress.costs)
        with watch.phase("score"):
            inversions = self.artefacts.test.inversions
            source, reconstruction = self.cells.scorers.unedited_logits(
                self.artefacts.test.inversions
            )
            decibels = psnr(inversions.reconstruction.numpy(), inversions.x_0.numpy())
            alike = (source[0] > 0) == (reconstruction[0] > 0)
            noise = noise_statistics(inversions.x_T.numpy())
        n = len(inversions)
        agreement = attribute_agreement(source[0], reconstruction[0])
        found = {
            "psnr": self._mean(decibels, "dB", "psnr"),
            "attribute_agreement": self._mean(alike.mean(1), "share", "agreement"),
            "worst_attribute_agreement": Measurement.of(float(agreement.min()), n, "share"),
            "x_T_mean": Measurement.of(noise.mean, n),
            "x_T_std": Measurement.of(noise.std, n),
        }
        costs = self._every_split_inverted()
        for split, cost in costs.items():
            found[f"inversion.{split}"] = Measurement.of(
                cost.unet_calls, cost.images, "U-Net passes"
            )
            if cost.seconds is not None:
                watch.seconds[f"inversion {split}"] = cost.seconds
        if isinstance(self.world.embedder, FindsFaces):
            found |= self._faces(from_8_bits(to_8_bits(inversions.x_0)),
                                 from_8_bits(to_8_bits(inversions.reconstruction)))  # fmt: skip
        if isinstance(self.world.dataset, CountsBadImages):
            found["images_left_out"] = Measurement.of(len(self.world.dataset.bad_images), n)
        total = sum(cost.unet_calls for cost in costs.values())
        return self._record("reconstruction", key, found, watch, cost=Cost(unet_calls=float(total)))

    def _every_split_inverted(self) -> dict[Split, InversionCost]:
        """Costs, and counts of bad images, must not depend on what was read before."""
        _ = self.artefacts.train, self.artefacts.validation, self.artefacts.test
        return self.artefacts.inversion_costs()

    def _faces(self, source: Tensor, reconstruction: Tensor) -> dict[str, Measurement]:
        """Identity that inversion alone loses, and how often no face was found to compare."""
        embedder = self.world.embedder
        # The face is looked for on the second image: edits are compared with reconstructions.
        alike = embedder.identity_similarity(source, reconstruction)
        missed = embedder.faces_missed if isinstance(embedder, FindsFaces) else None
        if alike is None or missed is None:
            return {}
        return {
            "identity": self._mean(alike.numpy(), "cosine", "identity"),
            "faces_missed": Measurement.of(missed, len(source)),
        }

    def sae(self, key: str) -> RunRecord:
        """The SAE beside PCA and the mean on held-out activations, and what it costs downstream."""
        watch = Stopwatch(self.artefacts.progress.costs)
        sae, test, train = self.artefacts.sae, self.artefacts.test, self.artefacts.train
        assert test.trajectories is not None and train.trajectories is not None
        with watch.phase("SAE quality"):
            quality = sae_quality(sae, test.trajectories, train.trajectories)
        found: dict[str, Measurement] = {}
        for name, q in quality.items():
            for field in ("explained_variance", "normalised_mse", "cosine", "l0", "dead_fraction"):
                value = getattr(q, field)
                if value is not None:
                    label = "dead_share" if field == "dead_fraction" else field
                    found[f"{name}.{label}"] = Measurement.of(float(value), q.vectors)
        rows = list(range(min(DOWNSTREAM_IMAGES, len(test.batch))))
        with watch.phase("SAE downstream"):
            error = downstream_error(self.world.backbone, sae.reconstruct, test.trajectories, rows)
            found["sae.eps_error"] = Measurement.of(error, len(rows))
            found |= self._downstream_images(sae.reconstruct, rows)
        spent = FitSpent(self.artefacts.sae_seconds)
        return self._record("sae", key, found, watch, {"sae": sae.content_hash}, spent)

    def _downstream_images(
        self, reconstruct: Callable[[Tensor, int], Tensor], rows: Sequence[int]
    ) -> dict[str, Measurement]:
        """Images regenerated with h replaced throughout, against the plain reconstruction."""
        inversions = self.artefacts.test.inversions.take(rows)
        images = ddim_generation(
            self.world.backbone, inversions.x_T, inversions.timesteps, reconstruct
        ).cpu()
        decibels = psnr(images.numpy(), inversions.reconstruction.numpy())
        logits = self.cells.scorers.logits(from_8_bits(to_8_bits(images)))[0]
        base = self.cells.scorers.unedited_logits(inversions)[1][0]
        alike = ((logits > 0) == (base > 0)).mean(1)
        return {
            "sae.psnr": self._mean(decibels, "dB", "sae psnr"),
            "sae.attribute_agreement": self._mean(alike, "share", "sae agreement"),
        }

    def probe_features(self) -> Probes:
        """What the probes of all concepts and methods read."""
        suite, artefacts = self.config.suite, self.artefacts
        train, test = artefacts.train, artefacts.test
        assert train.trajectories is not None and test.trajectories is not None
        timesteps = artefacts.timesteps
        step = min(range(len(timesteps)), key=lambda s: abs(timesteps[s] - PROBE_TIMESTEP))
        t = timesteps[step]
        maps = [
            store.h(step, slice(0, count))
            for store, count in (
                (train.trajectories, suite.probe_train_images),
                (test.trajectories, suite.probe_test_images),
            )
        ]
        codes = [artefacts.sae.encode(h, t).numpy() for h in maps]
        return Probes(
            timestep=t,
            latents=ProbeData(*(pooled_features(z) for z in codes)),
            units=ProbeData(*(unit_features(z).astype(np.float64) for z in codes)),
            raw=RawProbe(ProbeData(*(h.flatten(1).double().numpy() for h in maps))),
        )

    def probe(self, key: str, method: str, concept: Concept, probes: Probes) -> RunRecord:
        """SVM probes on a method's best aligned latents of one concept, with their controls."""
        watch = Stopwatch(self.artefacts.progress.costs)
        suite = self.config.suite
        editor, _ = self.cells.fitting.editor(method, concept, watch)
        assert isinstance(editor, SupportsLatentRanking)  # the runner asks no other
        column = self.world.dataset.card.attributes.index(concept.attribute)
        train, test = (
            self.artefacts.presence(split)[:, column].numpy()
            for split in (self.artefacts.train, self.artefacts.test)
        )
        labels = (train[: suite.probe_train_images], test[: suite.probe_test_images])
        seed = derive_seed(self.config.seed, "probe", concept.name)
        with watch.phase("probe"):
            results = [
                *probe_top_k(
                    probes.latents, editor.latent_ranking().numpy(), *labels, seed,
                    unit="latents", ks=suite.probe_ks,
                ),
                *probe_top_k(
                    probes.units, editor.unit_ranking().numpy(), *labels, seed,
                    unit="units", ks=suite.probe_ks,
                ),
                probes.raw(*labels, seed),
                majority_probe(probes.latents, *labels),
            ]  # fmt: skip
        found: dict[str, Measurement] = {}
        for result in results:
            found |= _probe_measurements(result)
        return self._record(
            "probe",
            key,
            found,
            watch,
            {"sae": self.artefacts.sae.content_hash},
            method=method,
            concept=concept.name,
            flags=(f"h at t = {probes.timestep}",),
        )

    def _mean(self, values: Array, unit: str, purpose: str) -> Measurement:
        """The mean over images with its bootstrap interval."""
        seed = derive_seed(self.config.seed, purpose)
        return over_images(lambda rows: float(values[rows].mean()), len(values), unit, seed)

    def _record(
        self,
        kind: Kind,
        key: str,
        found: Mapping[str, Measurement],
        watch: Stopwatch,
        artefacts: Mapping[str, str] | None = None,
        spent: FitSpent | None = None,
        **fields: Any,
    ) -> RunRecord:
        return RunRecord(
            **common_fields(self.world, self.config),
            kind=kind,
            measurements=dict(found),
            artefacts={KEY_ARTEFACT: key, **(artefacts or {})},
            provenance=provenance(self.config, watch, spent),
            **fields,
        )


class Probes:
    """Features that probes read, made once for all concepts.

    Attributes:
        timestep: where h was read.
        latents: pooled over positions.
        units: (latent, position) pairs.
        raw: a probe on all of h.
    """

    def __init__(self, timestep: int, latents: ProbeData, units: ProbeData, raw: RawProbe) -> None:
        """Keep them."""
        self.timestep, self.latents, self.units, self.raw = timestep, latents, units, raw


def _probe_measurements(result: ProbeResult) -> dict[str, Measurement]:
    name = result.features if result.k is None else f"{result.features}.k{result.k}"
    found = {
        name: Measurement(
            status="ok",
            value=result.accuracy,
            low=result.low,
            high=result.high,
            n=result.n_test,
            unit="share",
        )
    }
    if result.shuffled_accuracy is not None:
        found[f"{name}.shuffled"] = Measurement.of(result.shuffled_accuracy, result.n_test, "share")
    return found
