"""All cells of one data set: run one by one, skipping what is done, surviving what fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.cache.store import CacheError
from casl_bench.core import stops
from casl_bench.core.errors import InputError, InvalidBenchmarkError, as_line
from casl_bench.core.files import hash_bytes, hash_json
from casl_bench.core.memory import oom_as_usage_error
from casl_bench.core.seeding import derive_seed
from casl_bench.diffusion.ddim import ddim_generation
from casl_bench.domains.dataset import Concept, Split, SupportsOracle
from casl_bench.domains.domain import CountsBadImages, Domain, FindsFaces
from casl_bench.methods.method import METHODS, SupportsLatentRanking
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.image_similarity import attribute_agreement, noise_statistics, psnr
from casl_bench.metrics.probe import (
    ProbeData,
    RawProbe,
    majority_probe,
    pooled_features,
    probe_top_k,
    unit_features,
)
from casl_bench.metrics.scorer_validation import (
    Response,
    calibration_error,
    flipped_labels,
    leakage,
    response,
)
from casl_bench.results.edited_images import (
    LATENTS_FILE,
    Pixels,
    find_latent_images,
    latents_to_bytes,
)
from casl_bench.results.record import NOT_CARRIED, CellKind, CellRecord, Cost, FileRef, Measurement
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.runs.artifacts import Artifacts
from casl_bench.runs.cell import EditCells, common_fields, over_images, provenance, without_result
from casl_bench.runs.fits import FitResources, NotApplicableError
from casl_bench.runs.plan import (
    KEY_ARTIFACT,
    NULL_IMAGES,
    STAGE_VERSION,
    Cell,
    Sources,
    changed,
    done,
    fingerprint,
    info_of,
    make_method,
    random_directions,
    sources_of_domain,
    sources_of_methods,
    with_sources,
)
from casl_bench.runs.progress import Progress, Stopwatch
from casl_bench.runs.scoring import from_8_bits, to_8_bits
from casl_bench.runs.suites import DOWNSTREAM_IMAGES, RunConfig
from casl_bench.sae.quality import downstream_error, sae_quality

TRIAL_IMAGES = 2
"""Test images on which every attribute is flipped, for each one that a concept edits."""

TRIAL_RESAMPLES = 200
"""Of the images, for the intervals of these measurements."""

Rows = NDArray[np.intp]


PROBE_TIMESTEP = 100
"""The probe reads h at the visited timestep nearest to this; attributes fade as t grows."""


class DatasetRecords:
    """Makes the records that concern no single edit."""

    def __init__(self, artifacts: Artifacts, cells: EditCells) -> None:
        self.artifacts, self.cells = artifacts, cells
        self.domain, self.config = artifacts.domain, artifacts.config
        self.attributes = self.domain.dataset.card.attributes

    def scorer(self, key: str) -> CellRecord:
        """Every classifier, validated; InvalidBenchmarkError if one is under its floor."""
        watch = Stopwatch(self.artifacts.progress.costs)
        self._invert_every_split()  # their time is their own, not the scorers'
        with watch.phase("score"):
            found = self._scorer_measurements()
            scales = self.cells.scales.reference_scales
        return self._record("scorer", key, found, watch, scales=scales)

    def _scorer_measurements(self) -> dict[str, Measurement]:
        """Accuracy by classifier; where labels are unknown, its agreement with the first one.

        `NAME.accuracy`, `NAME.calibration_error`, each also `_on_reconstructions` and
        `_on_oracle_edits`; `NAME.worst_attribute`; of known flips `NAME.flips_seen`, `.slope`,
        `.correlation`, `.leakage` (in sd); `NAME.slope/ATTRIBUTE` and `NAME.leakage/ATTRIBUTE`.
        """
        test = self.artifacts.test
        truth = self.artifacts.presence(test).numpy()
        labelled = test.batch.attributes is not None
        source, reconstruction = self.cells.scorers.unedited_logits(test.inversions)
        edits = self._oracle_logits() if labelled else None
        found: dict[str, Measurement] = {}
        for k, name in enumerate(self.cells.scorers.names):
            right = (source[k] > 0) == truth
            worst = int(right.mean(0).argmin())
            seen = right[:, worst]
            if labelled and seen.mean() < self.domain.accuracy_floor:
                raise InvalidBenchmarkError(
                    f"classifier '{name}' is right on {seen.mean():.3f} of images for "
                    f"'{self.attributes[worst]}', under its floor of {self.domain.accuracy_floor}",
                    hint="use another classifier, or train it anew",
                )
            what = "accuracy" if labelled else "agreement"
            found |= self._accuracies(name, what, "", source[k], truth)
            found |= self._accuracies(name, what, "_on_reconstructions", reconstruction[k], truth)
            found[f"{name}.worst_attribute"] = self._over_images(
                lambda rows, seen=seen: float(seen[rows].mean()),  # type: ignore[misc]
                len(truth), "share", f"{name} worst",
            )  # fmt: skip
            if edits is not None:
                spread = self.cells.scales.spreads[k]
                found |= self._known_flips(name, source[k], edits[k], truth, spread)
        return found

    def _oracle_logits(self) -> Array | None:
        """[K, A, m, A] of the first m test images with each attribute flipped."""
        dataset = self.domain.dataset
        if not isinstance(dataset, SupportsOracle):
            return None
        count = TRIAL_IMAGES * self.artifacts.suite.test_images_per_concept
        ids = self.artifacts.test.batch.image_ids[:count]
        flipped = [
            self.cells.scorers.logits(from_8_bits(to_8_bits(dataset.oracle(ids, attribute))))
            for attribute in self.attributes
        ]
        return np.stack(flipped, axis=1)

    def _accuracies(
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
                lambda rows: float(calibration_error(logits[rows], truth[rows]).mean()),
                len(right), "share", f"{name} calibration{where}",
            )  # fmt: skip
        return found

    def _known_flips(
        self, name: str, source: Array, edits: Array, truth: NDArray[np.bool_], spread: Array
    ) -> dict[str, Measurement]:
        """What a classifier says of edits that change one attribute and nothing else."""
        m = edits.shape[1]
        before, labels = source[:m], truth[:m]
        edited, a = flipped_labels(labels), len(self.attributes)
        found = self._accuracies(
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

    def reconstruction(self, key: str) -> CellRecord:
        """How well inversion and generation give the test images back."""
        watch = Stopwatch(self.artifacts.progress.costs)
        with watch.phase("score"):
            inversions = self.artifacts.test.inversions
            source, reconstruction = self.cells.scorers.unedited_logits(inversions)
            decibels = psnr(inversions.reconstruction.numpy(), inversions.x_0.numpy())
            alike = (source[0] > 0) == (reconstruction[0] > 0)
            noise = noise_statistics(self.artifacts.domain.backbone.whiten(inversions.x_T).numpy())
        n = len(inversions)
        agreement = attribute_agreement(source[0], reconstruction[0])
        found = {
            "psnr": self._mean(decibels, "dB", "psnr"),
            "attribute_agreement": self._mean(alike.mean(1), "share", "agreement"),
            "worst_attribute_agreement": Measurement.of(float(agreement.min()), n, "share"),
            "x_T_mean": Measurement.of(noise.mean, n),
            "x_T_std": Measurement.of(noise.std, n),
        }
        self._invert_every_split()
        sizes, artifacts = self.config.suite.split_sizes, self.artifacts
        for split, count in sizes.items():
            passes = artifacts.passes_per_image * count
            found[f"inversion.{split}"] = Measurement.of(passes, count, "U-Net passes")
            if (seconds := artifacts.seconds(artifacts.split_key(split))) is not None:
                watch.seconds[f"inversion {split}"] = seconds
        if isinstance(self.domain.embedder, FindsFaces):
            found |= self._faces(from_8_bits(to_8_bits(inversions.x_0)),
                                 from_8_bits(to_8_bits(inversions.reconstruction)))  # fmt: skip
        if isinstance(self.domain.dataset, CountsBadImages):
            found["images_left_out"] = Measurement.of(len(self.domain.dataset.bad_images), n)
        total = Cost(unet_calls=float(artifacts.passes_per_image * sum(sizes.values())))
        left_out = sorted(NOT_CARRIED + a for a in self.domain.dataset.card.not_carried)
        return self._record("reconstruction", key, found, watch, cost=total, flags=tuple(left_out))

    def _invert_every_split(self) -> None:
        """Costs, and counts of bad images, must not depend on what was read before."""
        _ = self.artifacts.train, self.artifacts.validation, self.artifacts.test

    def _faces(self, source: Tensor, reconstruction: Tensor) -> dict[str, Measurement]:
        """Identity that inversion alone loses, and how often no face was found to compare."""
        embedder = self.domain.embedder
        # The face is looked for on the second image: edits are compared with reconstructions.
        alike = embedder.identity_similarity(source, reconstruction)
        missed = embedder.faces_missed(reconstruction) if isinstance(embedder, FindsFaces) else None
        if alike is None or missed is None:
            return {}
        return {
            "identity": self._mean(alike.numpy(), "cosine", "identity"),
            "faces_missed": Measurement.of(missed, len(source)),
        }

    def sae(self, key: str) -> CellRecord:
        """The SAE beside PCA and the mean on held-out activations, and what it costs downstream."""
        watch = Stopwatch(self.artifacts.progress.costs)
        sae, test, train = self.artifacts.sae, self.artifacts.test, self.artifacts.train
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
            error = downstream_error(self.domain.backbone, sae.reconstruct, test.trajectories, rows)
            found["sae.eps_error"] = Measurement.of(error, len(rows))
            found |= self._downstream_images(sae.reconstruct, rows)
        spent = FitResources(self.artifacts.seconds(self.artifacts.sae_key()))
        return self._record("sae", key, found, watch, {"sae": sae.content_hash}, spent)

    def _downstream_images(
        self, reconstruct: Callable[[Tensor, int], Tensor], rows: Sequence[int]
    ) -> dict[str, Measurement]:
        """Images regenerated with h replaced throughout, against the plain reconstruction."""
        inversions = self.artifacts.test.inversions.take(rows)
        images = ddim_generation(
            self.domain.backbone, inversions.x_T, inversions.timesteps, reconstruct
        ).cpu()
        decibels = psnr(images.numpy(), inversions.reconstruction.numpy())
        logits = self.cells.scorers.logits(from_8_bits(to_8_bits(images)))[0]
        base = self.cells.scorers.unedited_logits(inversions)[1][0]
        alike = ((logits > 0) == (base > 0)).mean(1)
        return {
            "sae.psnr": self._mean(decibels, "dB", "sae psnr"),
            "sae.attribute_agreement": self._mean(alike, "share", "sae agreement"),
        }

    @cached_property
    def probe_features(self) -> Probes:
        """What the probes of all concepts and methods read."""
        suite, artifacts = self.config.suite, self.artifacts
        train, test = artifacts.train, artifacts.test
        assert train.trajectories is not None and test.trajectories is not None
        timesteps = artifacts.timesteps
        step = min(range(len(timesteps)), key=lambda s: abs(timesteps[s] - PROBE_TIMESTEP))
        t = timesteps[step]
        maps = [
            store.h(step, slice(0, count))
            for store, count in (
                (train.trajectories, suite.probe_train_images),
                (test.trajectories, suite.probe_test_images),
            )
        ]
        sae = artifacts.sae
        codes = [sae.encode(h.to(sae.device), t).cpu().numpy() for h in maps]
        return Probes(
            timestep=t,
            latents=ProbeData(*(pooled_features(z) for z in codes)),
            units=ProbeData(*(unit_features(z).astype(np.float64) for z in codes)),
            raw=RawProbe(ProbeData(*(h.flatten(1).double().numpy() for h in maps))),
            codes=codes[1],
            pictures=to_8_bits(test.inversions.x_0[: suite.probe_test_images]),
        )

    def probe(
        self, key: str, method: str, concept: Concept, probes: Probes
    ) -> tuple[CellRecord, bytes]:
        """SVM probes on a concept's best aligned latents, and the file of their images."""
        watch = Stopwatch(self.artifacts.progress.costs)
        suite = self.config.suite
        editor, _ = self.cells.fitting.editor(method, concept, watch)
        assert isinstance(editor, SupportsLatentRanking)  # the runner asks no other
        column = self.domain.dataset.card.attributes.index(concept.attribute)
        train, test = (
            self.artifacts.presence(split)[:, column].numpy()
            for split in (self.artifacts.train, self.artifacts.test)
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
        for r in results:
            name = r.features if r.k is None else f"{r.features}.k{r.k}"
            found[name] = Measurement(
                status="ok", value=r.accuracy, low=r.low, high=r.high, n=r.n_test, unit="share"
            )
            if r.shuffled_accuracy is not None:
                found[f"{name}.shuffled"] = Measurement.of(r.shuffled_accuracy, r.n_test, "share")
        best = find_latent_images(probes.codes, editor.latent_ranking().tolist(), probes.pictures)
        images = latents_to_bytes(best)
        record = self._record(
            "probe", key, found, watch, {"sae": self.artifacts.sae.content_hash},
            method=method, concept=concept.name, flags=(f"h at t = {probes.timestep}",),
            images=FileRef(file=LATENTS_FILE, sha256=hash_bytes(images)),
        )  # fmt: skip
        return record, images

    def _over_images(
        self, statistic: Callable[[Rows], float], n: int, unit: str, purpose: str
    ) -> Measurement:
        seed = derive_seed(self.config.seed, "trial", purpose)
        return over_images(statistic, n, unit, seed, TRIAL_RESAMPLES)

    def _mean(self, values: Array, unit: str, purpose: str) -> Measurement:
        seed = derive_seed(self.config.seed, purpose)
        return over_images(lambda rows: float(values[rows].mean()), len(values), unit, seed)

    def _record(
        self,
        kind: CellKind,
        key: str,
        found: Mapping[str, Measurement],
        watch: Stopwatch,
        artifacts: Mapping[str, str] | None = None,
        spent: FitResources | None = None,
        **fields: Any,
    ) -> CellRecord:
        return CellRecord(
            **common_fields(self.domain, self.config),
            kind=kind,
            measurements=dict(found),
            artifacts={KEY_ARTIFACT: key, **(artifacts or {})},
            provenance=provenance(self.config, watch, spent),
            **fields,
        )


@dataclass(frozen=True)
class Probes:
    """Features that probes read, made once for all concepts.

    Attributes:
        timestep: where h was read.
        latents: pooled over positions; `units` are (latent, position) pairs.
        raw: a probe on all of h.
        codes: [n, d_sae, h, w] latents of the test images.
        pictures: [n, H, W, 3] of these.
    """

    timestep: int
    latents: ProbeData
    units: ProbeData
    raw: RawProbe
    codes: NDArray[np.float32]
    pictures: Pixels


class DatasetRun:
    """All cells of one data set."""

    def __init__(
        self, domain: Domain, config: RunConfig, store: RecordStore, progress: Progress
    ) -> None:
        self.domain, self.config, self.store = domain, config, store
        self.artifacts = Artifacts(domain, config, progress)
        self.cells = EditCells(self.artifacts, store)
        self.records = DatasetRecords(self.artifacts, self.cells)

    def prepare(self) -> None:
        """What comes before any cell: no table may rest on scorers or images that fail here."""
        with self._watching():
            self._shared("scorer", self.records.scorer)
            self._shared("reconstruction", self.records.reconstruction)

    def share(self, part: Split | Literal["sae"]) -> None:
        """Make something that cells read, so that processes which run them find it."""
        with self._watching():
            _ = getattr(self.artifacts, part)

    def run_cell(self, cell: Cell) -> None:
        """Run a cell and its probe, less what is done; a fault of the method ends either alone."""
        with self._watching():
            if done(self.store, cell) is None:
                self._recorded(lambda: self.cells.run(cell), cell.label, partial(self._fault, cell))
            if not cell.control and not cell.fit_seed:
                self._probe(cell)

    def run_random_directions(self) -> None:
        """What random directions do, once for all concepts: what EPR+ is divided by."""
        suite, dataset = self.config.suite, self.domain.dataset.card.name
        work = float(NULL_IMAGES * len(suite.strengths) * suite.num_steps)
        with self._watching():
            for name, draw in random_directions(self.config):
                method, sources = make_method(name, suite), self._sources([name])
                settings = method.config.model_dump(mode="json")
                inputs = [name, method.info.version, settings, draw, NULL_IMAGES]
                key = self._key("null", *inputs)
                if not self._has(CellKey(dataset, "null", name, fit_seed=draw), key, sources):
                    self.cells.random_direction(name, draw, key, sources, work)

    def finish(self) -> None:
        """What comes last, where a method reads the SAE: how good it is."""
        with self._watching():
            self._shared("sae", self.records.sae)

    def fail(self, cell: Cell, error: Exception, status: Literal["failed", "skipped"]) -> None:
        """Give a cell that is not run a record of its reason."""
        self.store.write(self._fault(cell, status, error))

    def _fault(
        self, cell: Cell, status: Literal["failed", "skipped"], error: BaseException
    ) -> CellRecord:
        return without_result(self.domain, self.config, cell, status, error)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Charge the block's passes to the progress's phases, and report want of memory."""
        progress, unet = self.artifacts.progress, self.domain.backbone.unet
        with progress.costs.count(unet), oom_as_usage_error():
            yield

    def _recorded(
        self,
        work: Callable[[], object],
        label: str,
        fault: Callable[[Literal["failed", "skipped"], BaseException], CellRecord],
    ) -> None:
        """Do what a method takes part in; where it fails or does not apply, record that."""
        try:
            with oom_as_usage_error():
                work()
        except (InvalidBenchmarkError, CacheError, KeyboardInterrupt):
            raise
        except NotApplicableError as error:
            self.store.write(fault("skipped", error))
        except BaseException as error:  # a stranger's method may fail in any way
            if stops.came:
                raise
            self.store.write(fault("failed", error))
            self.artifacts.progress.note(f"{label} failed: {as_line(error)}")

    def _probe(self, cell: Cell) -> None:
        """Probe a method's ranked latents, where it ranks any and its own cell is done."""
        uses_sae = make_method(cell.method, self.config.suite).info.uses_sae
        if not uses_sae or done(self.store, cell) is None:
            return
        key = hash_json([cell.key, "probe", STAGE_VERSION])
        sources = self._sources([cell.method])
        if self._has(cell.probe_store_key, key, sources):
            return

        def fault(status: Literal["failed", "skipped"], error: BaseException) -> CellRecord:
            record = self._fault(cell, status, error)
            return record.model_copy(update={"kind": "probe", "artifacts": {KEY_ARTIFACT: key}})

        def probe() -> None:
            editor, _ = self.cells.fitting.editor(cell.method, cell.concept, Stopwatch())
            if not isinstance(editor, SupportsLatentRanking):
                # It may have ranked some before it was edited.
                self.store.remove(cell.probe_store_key)
                return
            probes = self.records.probe_features
            with self.artifacts.progress.task(f"{cell.label}: probe", 1):
                files: dict[str, bytes] = {}
                try:
                    record, images = self.records.probe(key, cell.method, cell.concept, probes)
                    files = {LATENTS_FILE: images}
                except InputError as error:  # such as an attribute that all images have
                    record = fault("skipped", error)
                self.store.write(with_sources(record, sources), files)

        self._recorded(probe, f"{cell.label}: probe", fault)

    def _shared(self, kind: CellKind, make: Callable[[str], CellRecord]) -> None:
        key = self._key(kind)
        # Some of these run controls of their own, such as known edits.
        sources = self._sources([name for name in METHODS if info_of(name).control])
        if self._has(CellKey(self.domain.dataset.card.name, kind), key, sources):
            return
        record = with_sources(make(key), sources)
        with self.artifacts.progress.task(f"{kind}: record", 1):
            self.store.write(record)

    def _key(self, kind: CellKind, *more: Any) -> str:
        card = asdict(self.domain.dataset.card)
        of_dataset = [STAGE_VERSION, fingerprint(self.domain), self.config.key(), card]
        return hash_json([kind, *of_dataset, *more])

    def _sources(self, methods: Sequence[str]) -> Sources:
        return {**sources_of_domain(self.domain), **sources_of_methods(methods)}

    def _has(self, place: CellKey, key: str, sources: Sources) -> bool:
        record = self.store.find(place)
        if record is None or record.artifacts.get(KEY_ARTIFACT) != key:
            return False
        return record.status != "failed" and not changed(record.provenance.sources, sources)
