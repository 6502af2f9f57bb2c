"""`evaluate`: methods by name, a class, or a plain function of images, on the benchmark."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor

from casl_bench.api.run import Run, analyse
from casl_bench.cache.store import default_cache
from casl_bench.core.errors import InputError, InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_bytes
from casl_bench.core.registry import Registry
from casl_bench.diffusion.inversion import Inversions
from casl_bench.domains.dataset import DATASETS, Concept, Dataset
from casl_bench.domains.domain import DOMAINS, Domain
from casl_bench.domains.options import DomainOptions
from casl_bench.methods.method import (
    METHODS,
    EditTask,
    MethodConfig,
    MethodInfo,
    Supervision,
    UnfittedMethod,
)
from casl_bench.methods.pixel_editor import PixelEdit, PixelEditor
from casl_bench.report.run_report import remove_tables, write_run_report
from casl_bench.runs import names as known_names
from casl_bench.runs.executor import run as carry_out
from casl_bench.runs.parallel import default_jobs
from casl_bench.runs.progress import SilentProgress, open_progress
from casl_bench.runs.run_lock import claim_run_folder
from casl_bench.runs.suites import (
    DEFAULT_SAE,
    DEFAULT_SUITE,
    RunConfig,
    default_out,
    domain_kind_of_suite,
)
from casl_bench.runs.suites import suite as suite_named
from casl_bench.runs.system_info import resolve_device

EditFunction = Callable[[Tensor, Concept, float], Any]
"""(images [n, 3, H, W] float32 in [-1, 1], what to edit, strength) → images of the same shape."""

Method = str | type | EditFunction


def evaluate(
    methods: Method | Sequence[Method],
    dataset: str | Domain | Sequence[str] = "rendered_faces",
    *,
    concepts: str | Sequence[str] | None = None,
    suite: str = DEFAULT_SUITE,
    seed: int = 0,
    fit_seeds: int | None = None,
    supervision: Supervision = "none",
    version: int = 1,
    sae: str = DEFAULT_SAE,
    device: str = "cpu",
    jobs: int | None = None,
    out: str | Path | None = None,
    cache: str | Path | None = None,
    options: DomainOptions | None = None,
    progress: bool = True,
) -> Run:
    """Run methods through the benchmark, controls included, and compare them.

    A plain function `edit(images, concept, strength) → images` is a method of its own: it is given
    reconstructions, which every edit is measured against, and its strength is chosen on validation
    images like everybody's. Its results are kept under its source code; what else it depends on,
    such as a network that it closes over, is said by `version`.

    Args:
        methods: one or several, by name ("casl"), as a class with `info`, `fit` and `restore`, or
            as such a function.
        dataset: name of a data set or several, or a domain of your own.
        concepts: what to edit, one or several; by default all that the data set has.
        suite: "default", "full", "quick" or "paper": `casl-bench --list`.
        seed: every random number derives from it.
        fit_seeds: fits of every method; by default 3 in the suite "full", else 1.
        supervision: of functions: what they were made with ("none", "text" or "labels").
        version: of functions: raise it whenever their edits may change.
        sae: the dictionary of methods that edit by one: a kind's name, or the folder of one
            trained elsewhere (docs/sae_track.md).
        device: a torch device; functions are called with images on the CPU.
        jobs: processes; by default what cores and memory bear, and 1 for what is no name.
        out: the run folder; by default that of the same command line, `runs/DATASET-SUITE-seedN`.
        cache: folder of what runs share; by default the user's.
        options: places of photographs and weights.
        progress: whether to show progress on stderr.

    Returns:
        The run: `table` and `scores` are DataFrames.

    Warns:
        UserWarning: if some cells failed; `Run.failed` says why.

    Raises:
        UsageError: on an unknown name, or a run folder of another configuration.
        InvalidBenchmarkError: if a control is out of its bounds, so that no number can be trusted.
    """
    known_names.load_registries()
    chosen = [methods] if isinstance(methods, str) or callable(methods) else list(methods)
    domains = [dataset] if isinstance(dataset, str | Domain) else list(dataset)
    edited = [concepts] if isinstance(concepts, str) else list(concepts or ["all"])
    own = [m for m in chosen if not isinstance(m, str)]
    guests = [d for d in domains if isinstance(d, Domain)]
    if (own or guests) and jobs not in (None, 1):
        raise UsageError(
            "other processes do not see what was made in this one",
            hint="leave jobs out, or put the method into a file and use --plugin",
        )
    settings = suite_named(suite)
    with ExitStack() as stack:
        classes = [m if isinstance(m, type) else _of_function(m, supervision, version) for m in own]
        for cls in classes:
            stack.enter_context(_known_as(METHODS, _name_of(cls), cls))
        for domain in guests:
            name = domain.dataset.card.name
            stack.enter_context(_known_as(DATASETS, name, partial(_same, domain.dataset)))
            stack.enter_context(_known_as(DOMAINS, name, partial(_same, domain)))
        named = iter(classes)
        wanted = [m if isinstance(m, str) else _name_of(next(named)) for m in chosen]
        found = known_names.resolve_datasets(
            [d.dataset.card.name if isinstance(d, Domain) else d for d in domains],
            domain_kind_of_suite(suite),
        )
        dictionary, sae_hash = known_names.resolve_sae(sae)
        place = Path(out or default_out(found, suite, seed, sae=dictionary))
        where = resolve_device(device)
        config = RunConfig(
            methods=known_names.resolve_methods(wanted),
            datasets=found,
            concepts=known_names.resolve_concepts(edited, found),
            suite=settings,
            seed=seed,
            fit_seeds=fit_seeds or settings.fit_seeds,
            sae=dictionary,
            sae_hash=sae_hash,
            device=where,
            out=place,
            cache=Path(cache) if cache is not None else default_cache(),
            jobs=jobs or (1 if own or guests else default_jobs(where, domain_kind_of_suite(suite))),
            options=options or DomainOptions(),
        )
        with claim_run_folder(config):
            try:
                with open_progress() if progress else SilentProgress() as shown:
                    carry_out(config, shown)
                write_run_report(place)
            except InvalidBenchmarkError:
                remove_tables(place)  # not to be believed any more
                raise
    result = analyse(place)
    if len(result.failed):
        warnings.warn(
            f"{len(result.failed)} cells failed, see Run.failed: {result.failed['reason'].iloc[0]}",
            stacklevel=2,
        )
    return result


@contextmanager
def _known_as(registry: Registry[Any], name: str, factory: Any) -> Iterator[None]:
    if name in registry and registry.factory(name) is not factory:
        raise UsageError(
            f"{registry.kind} '{name}' is there already", hint="give yours another name"
        )
    with registry.temporarily(name, factory):
        yield


def _same(what: Dataset | Domain, *given: object) -> Any:
    return what


def _name_of(cls: type) -> str:
    info = getattr(cls, "info", None)
    if not isinstance(info, MethodInfo) or not all(hasattr(cls, p) for p in ("fit", "restore")):
        raise UsageError(
            f"class '{cls.__name__}' is no method",
            hint="it needs info, fit and restore (docs/add_a_method.md); or give a function "
            "edit(images, concept, strength)",
        )
    return info.name


# A function as a method.


class FunctionConfig(MethodConfig):
    """What the results of a function are kept under."""

    code: str = ""


class _FunctionEditor(PixelEditor):
    def __init__(self, function: EditFunction, concept: Concept) -> None:
        self._function, self._concept = function, concept

    def prepare(self, inversions: Inversions) -> PixelEdit:
        images = inversions.reconstruction

        def edited(strength: float) -> Tensor:
            found = self._function(images.clone(), self._concept, strength)
            tensor = torch.as_tensor(np.asarray(found) if not isinstance(found, Tensor) else found)
            if tensor.shape != images.shape:
                raise InputError(
                    f"the function gives images of shape {tuple(tensor.shape)} for "
                    f"{tuple(images.shape)}",
                    hint="return as many images of the same size",
                )
            return tensor.detach().cpu().float()

        return edited


def _of_function(function: EditFunction, supervision: Supervision, version: int) -> type:
    """A method class around `edit(images, concept, strength)`."""
    name = getattr(function, "__name__", type(function).__name__).strip("_").lower()
    if not name.isidentifier():
        raise UsageError(
            "a lambda has no name to stand in a table", hint="define a function with def"
        )
    try:
        code = hash_bytes(inspect.getsource(function).encode())[:16]
    except (OSError, TypeError):  # typed into an interpreter: like nothing else
        code = uuid4().hex[:16]

    class FunctionMethod(UnfittedMethod[FunctionConfig]):
        """The function; it learns nothing here."""

        config_class = FunctionConfig
        info = MethodInfo(
            name=name,
            title=name.replace("_", " "),
            source="a function of the user's",
            version=version,
            supervision=supervision,
            bidirectional=False,
        )

        def __init__(self, config: FunctionConfig | None = None, **settings: object) -> None:
            super().__init__(config, **{"code": code, **settings})

        def fit(self, task: EditTask) -> Any:
            """Nothing is learned: a concept is all that the function is told."""
            return _FunctionEditor(function, task.concept)

    return FunctionMethod
