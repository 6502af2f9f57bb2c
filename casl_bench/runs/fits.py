"""Fitted methods kept in the cache: a fit is never done twice."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from casl_bench.cache.code_hash import FIT_CODE, code_hash, environment, source_hash
from casl_bench.cache.store import ABOUT, Cache, CacheKey
from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.files import hash_file, hash_json, write_bytes
from casl_bench.core.memory import peak_memory
from casl_bench.domains.dataset import Concept, SupportsOracle
from casl_bench.methods.method import (
    EditingMethod,
    Editor,
    EditTask,
    FitCost,
    MethodInfo,
    OracleRenderer,
    SupportsFitKey,
    SupportsPretrained,
)
from casl_bench.models.micro_batch import one_thread
from casl_bench.models.model_files import hash_tensors
from casl_bench.models.random_numbers import generator
from casl_bench.models.scorers import Differentiable
from casl_bench.models.weights import read_tensors
from casl_bench.runs.artifacts import Artifacts
from casl_bench.runs.hidden_ids import HiddenIds
from casl_bench.runs.plan import make_method, pretrained_file
from casl_bench.runs.progress import Stopwatch
from casl_bench.runs.withheld import withheld
from casl_bench.sae.sae import HSpaceSae


@dataclass(frozen=True)
class FitResources:
    """Wall time and `peak_memory` of a fit where it was made; None where not measured."""

    seconds: float | None = None
    peak_memory_mb: float | None = None


@dataclass(frozen=True)
class StoredFit:
    """A fit: its tensors, its cost in counts, and what it took where it was made."""

    state: dict[str, Tensor]
    cost: FitCost
    resources: FitResources = FitResources()


def make_fit(method: EditingMethod, task: EditTask, device: str) -> tuple[Editor, StoredFit]:
    """Fit a method and measure it, whatever its own cost says of time."""
    started = time.monotonic()
    with peak_memory(device) as peak:
        editor = method.fit(task)
    resources = FitResources(time.monotonic() - started, peak.mb)
    return editor, StoredFit(editor.state(), editor.cost, resources)


def fit_key(method: EditingMethod, inputs: str) -> str:
    """Hash of what determines a fit: the method's settings or shared key, and `inputs`."""
    own: JsonValue = [method.info.name, method.info.version, method.config.model_dump(mode="json")]
    if isinstance(method, SupportsFitKey):
        own = method.fit_key()
    return hash_json([own, inputs])


FIT_FILE = "fit.safetensors"


class FitStore:
    """One safetensors file a fit, an entry of the cache; `made` counts those not read."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.made = 0

    def get(
        self, key: str, make: Callable[[Path], StoredFit], about: Mapping[str, JsonValue]
    ) -> StoredFit:
        """The fit stored under a `fit_key`, or the one that `make` gives, which is then stored.

        `make` is given a scratch folder that survives an interruption; `about` holds what else
        tells the fit from others. Raises InvalidBenchmarkError if the stored file is none of a fit.
        """
        made: list[StoredFit] = []

        def write(folder: Path) -> None:
            workspace = folder / "work"
            workspace.mkdir(exist_ok=True)
            fit = make(workspace)
            _write(folder / FIT_FILE, fit)
            shutil.rmtree(workspace)
            self.made += 1
            made.append(fit)

        with one_thread():
            entry = self.cache.get_or_make(CacheKey("fits", {**about, "fit": key}), write)
        return made[0] if made else _read(entry.folder / FIT_FILE)


def _write(path: Path, fit: StoredFit) -> None:
    cost = {
        "parameters": fit.cost.parameters,
        "unet_calls": fit.cost.unet_calls,
        "seconds": fit.resources.seconds,
        "peak_memory_mb": fit.resources.peak_memory_mb,
    }
    metadata = {"cost": json.dumps(cost), "sha256": hash_tensors(fit.state)}
    tensors = {name: t.detach().cpu().contiguous() for name, t in fit.state.items()}
    write_bytes(path, save(tensors, metadata=metadata))


def _read(path: Path) -> StoredFit:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        state = read_tensors(path)
        if hash_tensors(state) != metadata["sha256"]:
            raise ValueError("its content is not what was written")
        cost = json.loads(metadata["cost"])
        resources = FitResources(cost.pop("seconds", None), cost.pop("peak_memory_mb", None))
        return StoredFit(state, FitCost(**cost), resources)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InvalidBenchmarkError(
            f"a stored fit cannot be used: {error}",
            where=str(path),
            hint="delete its folder to fit again",
        ) from error


class NotApplicableError(InputError):
    """What a cell needs is not there, such as labels: it is skipped, not failed."""


@dataclass(frozen=True)
class _LentSae:
    """A `SaeProvider` through which nothing else of a run can be reached."""

    get: Callable[[], HSpaceSae]


class Fitting:
    """Fits methods on the concepts of one data set: each sees what it declares."""

    def __init__(self, artifacts: Artifacts) -> None:
        self.artifacts, self.domain, self.config = artifacts, artifacts.domain, artifacts.config
        self.store = FitStore(artifacts.cache)
        self.hidden = HiddenIds()
        self._last: dict[tuple[str, str, int], tuple[Editor, StoredFit]] = {}

    def editor(
        self, name: str, concept: Concept, watch: Stopwatch, work: float = 0.0, fit_seed: int = 0
    ) -> tuple[Editor, StoredFit]:
        """The method fitted on a concept: from memory, from the cache, or fitted now."""
        place = (name, concept.name, fit_seed)
        if place not in self._last:
            method = make_method(name, self.config.suite)
            found = self.fit(method, concept, watch, work, fit_seed)
            self._last = {place: found}  # one method's weights at a time
        return self._last[place]

    def fit(
        self,
        method: EditingMethod,
        concept: Concept,
        watch: Stopwatch,
        work: float,
        fit_seed: int = 0,
    ) -> tuple[Editor, StoredFit]:
        """A method of any settings fitted on a concept: from the cache, or fitted now."""
        info, artifacts = method.info, self.artifacts
        inputs = self._inputs(info, concept)
        weights = pretrained_file(self.config, method, concept)
        if weights is not None:
            inputs["pretrained"] = hash_file(weights)
        if fit_seed:
            inputs["fit_seed"] = fit_seed
        key = fit_key(method, hash_json(inputs))
        about = {
            **inputs,
            ABOUT: [self.domain.dataset.card.name, info.name, concept.name],
            "code": [
                code_hash(FIT_CODE),
                source_hash(type(method)),
                source_hash(self.domain.dataset),
            ],
            "environment": {**environment()},
        }
        label, progress = f"{info.name} / {concept.name}: fit", artifacts.progress
        with progress.task(label, 1, work), watch.phase("fit"):
            made: list[Editor] = []

            def make(workspace: Path) -> StoredFit:
                if weights is not None:
                    assert isinstance(method, SupportsPretrained)  # the plan has asked
                    state = method.read_pretrained(weights)
                    return StoredFit(state, FitCost(sum(t.numel() for t in state.values())))
                task = self.task(method, concept, workspace, fit_seed=fit_seed)
                with withheld():
                    editor, fit = make_fit(method, task, self.config.device)
                made.append(editor)
                return fit

            stored = self.store.get(key, make, about)
            if made:
                return made[0], stored
            task = self.task(method, concept, self.scratch(key), fit_seed=fit_seed)
            with withheld():
                return method.restore(task, stored.state), stored

    def _inputs(self, info: MethodInfo, concept: Concept) -> dict[str, Any]:
        """What `task` shows a method, as JSON: whatever differs there makes another fit."""
        artifacts, domain, suite = self.artifacts, self.domain, self.artifacts.suite
        classifier: JsonValue = None
        if info.uses_validation or info.needs_scorer:
            # Without labels it also says which validation images lack the attribute.
            first = domain.classifiers[0].info
            classifier = [first.name, first.version, first.weights_hash]
        return {
            "stage": 3,
            "train": artifacts.split_key("train").hash,
            "validation": (
                [artifacts.split_key("validation").hash, suite.validation_images]
                if info.uses_validation
                else None
            ),
            "judge": classifier,
            "attributes": list(domain.dataset.card.attributes),
            "concept": asdict(concept),
            "guide": [domain.guide_clip.name, domain.guide_clip.weights_hash],
            "sae": artifacts.sae.content_hash if info.uses_sae else None,
            "seed": self.config.seed,
            "device": self.config.device.split(":")[0],
        }

    def scratch(self, key: str) -> Path:
        """A scratch folder of what is not kept in the cache, in the run folder."""
        path = self.config.out / "scratch" / key[:16]
        path.mkdir(parents=True, exist_ok=True)
        return path

    def task(
        self,
        method: EditingMethod,
        concept: Concept,
        workspace: Path,
        beside: Editor | None = None,
        fit_seed: int = 0,
    ) -> EditTask:
        """What the method may see: exactly what it declares."""
        info, artifacts, domain = method.info, self.artifacts, self.domain
        every_label: dict[str, Tensor] = {}
        if info.supervision == "labels":
            known = artifacts.train.batch.attributes
            if known is None:
                raise NotApplicableError(f"'{info.name}' needs labels, which this data set has not")
            every_label = dict(zip(domain.dataset.card.attributes, known.T, strict=True))
        oracle: OracleRenderer | None = None
        others: tuple[str, ...] = ()
        if info.needs_oracle:
            if not isinstance(domain.dataset, SupportsOracle):
                raise NotApplicableError("this data set's factors are unknown: no oracle")
            oracle = self.hidden.oracle(domain.dataset.oracle)
            others = tuple(a for a in domain.dataset.card.attributes if a != concept.attribute)
        if info.needs_scorer and not isinstance(domain.classifiers[0], Differentiable):
            raise NotApplicableError("the classifier that judges first gives no gradients")
        validation = None
        if info.uses_validation:
            validation = self.hidden.inversions(artifacts.concept_validation(concept).inversions)
        assert artifacts.train.trajectories is not None  # the training split keeps them
        # The key leaves the method out: all methods are given the same random numbers.
        again = (fit_seed,) if fit_seed else ()
        rng = generator(self.config.seed, "fit", domain.dataset.card.name, concept.name, *again)
        return EditTask(
            concept=concept,
            backbone=domain.backbone,
            train=self.hidden.inversions(artifacts.train.inversions),
            labels=every_label.get(concept.attribute),
            all_labels=every_label if info.uses_all_labels else None,
            trajectories=self.hidden.trajectories(artifacts.train.trajectories),
            saes=_LentSae(lambda: artifacts.sae) if info.uses_sae else None,
            guide_clip=domain.guide_clip if info.sees_text else None,
            generator=rng,
            workspace=workspace,
            validation=validation,
            oracle=oracle,
            other_attributes=others,
            scorer=domain.classifiers[0] if info.needs_scorer else None,
            beside=beside,
        )
