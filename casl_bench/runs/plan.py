"""Config → cells: what a run will do, with the key under which each result is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import field as field_of
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import JsonValue, ValidationError

from casl_bench.cache.code_hash import source_to_compare
from casl_bench.core.errors import (
    BenchError,
    InvalidBenchmarkError,
    UsageError,
    as_line,
    first_fault,
    unknown_name,
)
from casl_bench.core.files import hash_file, hash_json
from casl_bench.core.registry import Registry
from casl_bench.domains.dataset import DATASETS, Concept, CountsImages, DatasetCard, Split
from casl_bench.domains.domain import DOMAINS, Domain, Preparation, Prepares
from casl_bench.methods.method import (
    METHODS,
    EditingMethod,
    MethodConfig,
    MethodInfo,
    SupportsFitEstimate,
    SupportsPretrained,
    check_controls,
)
from casl_bench.models.noise_schedule import power_timesteps
from casl_bench.results.record import CellRecord
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.runs.progress import Progress
from casl_bench.runs.suites import RunConfig, Suite

T = TypeVar("T")
Sources = Mapping[str, str]
"""Code that takes part and is not this package's own, such as "method asyrp" → SHA-256, hex."""


def sources_of_methods(names: Iterable[str]) -> dict[str, str]:
    """Of those methods and controls that have their source elsewhere."""
    found = {f"method {name}": source_to_compare(METHODS.factory(name)) for name in names}
    return {name: source for name, source in sorted(found.items()) if source is not None}


def parts_of_domain(domain: Domain) -> list[object]:
    """What of a domain may be somebody else's: plugins may bring domains."""
    name = domain.dataset.card.name
    made_by = [DOMAINS.factory(name)] if name in DOMAINS else []
    return [domain.dataset, domain.backbone, *domain.classifiers, *made_by]


def sources_of_domain(domain: Domain) -> dict[str, str]:
    """One hash of all code in a data set's domain that is not this package's own."""
    found = [source_to_compare(part) for part in parts_of_domain(domain)]
    return {f"data set {domain.dataset.card.name}": hash_json(found)} if any(found) else {}


def with_sources(record: CellRecord, sources: Sources) -> CellRecord:
    """The record, naming the code that made it."""
    provenance = record.provenance.model_copy(update={"sources": dict(sources)})
    return record.model_copy(update={"provenance": provenance})


def changed(before: Sources, now: Sources) -> tuple[str, ...]:
    """Names whose source differs from that which made a result; what either lacks is equal."""
    return tuple(name for name, source in now.items() if before.get(name, source) != source)


def note_of_changed(changes: Sequence[Iterable[str]], kind: str) -> str:
    """One line: what has changed for each of several cells or trials, which are made again."""
    names = sorted({name for own in changes for name in own})
    plural = "s" * (len(changes) > 1)
    return f"edited since: {', '.join(names)}; {len(changes)} {kind}{plural} made again"


STAGE_VERSION = 5
"""Part of every key. Raise it when the runner itself comes to give other scores."""

MATCHED_CONCEPTS, MATCHED_IMAGES = 3, 8
"""Concepts of a data set, and images of each, on which random edits as large as a method's are run.

Their bound says that they flip fewer images than the perfect edit, which flips nearly all: of 24
images, 17 (70 %) are significantly fewer than 23 by Fisher's exact test at 5 %.
"""

NULL_IMAGES = 16
"""Test images on which random directions are run. What varies is the direction: on rendered faces
the logs of their EPR differ by 0.5 to 0.7 (sd), so that the mean of 8 has a standard error of about
0.2, to which 16 images add 0.1."""

_T_MAX = 999
"""The last timestep that estimates assume; every backbone here has a thousand."""

KEY_ARTIFACT = "cell"
"""Under this name a record's `artifacts` hold the key of the cell that it is of."""


@dataclass(frozen=True)
class Cell:
    """The unit of work, of resuming and of record.

    Attributes:
        beside: for a control that is matched to a method: that method.
        fit_seed: which of its fits this is.
        work: estimated U-Net calls, in images.
        key: SHA-256 of `inputs`, everything that determines the result.
        sources: of what takes part and is not this package's own.
    """

    domain_kind: str
    dataset: str
    method: str
    concept: Concept
    beside: str | None
    control: bool
    fit_seed: int
    work: float
    key: str
    inputs: dict[str, JsonValue] = field_of(compare=False, repr=False, default_factory=dict)
    sources: Sources = field_of(compare=False, repr=False, default_factory=dict)

    @property
    def label(self) -> str:
        """As shown to the user."""
        beside = f" beside {self.beside}" if self.beside else ""
        again = f" #{self.fit_seed}" if self.fit_seed else ""
        return f"{self.method}{again}{beside} / {self.concept.name}"

    @property
    def store_key(self) -> CellKey:
        """Where the record store keeps it."""
        return CellKey(
            self.dataset, "edit", self.method, self.beside, self.concept.name, self.fit_seed
        )

    @property
    def probe_store_key(self) -> CellKey:
        """Where it keeps the probe of the latents that the method ranks, if any."""
        return CellKey(self.dataset, "probe", self.method, None, self.concept.name)


def fingerprint(domain: Domain) -> str:
    """Hash of everything in a domain that a number may depend on."""
    return hash_json(
        {
            "world": domain.name,
            "backbone": domain.backbone.weights_hash,
            # Two architectures may be run on the same weights.
            "guide_clip": [domain.guide_clip.name, domain.guide_clip.weights_hash],
            "scorers": domain.scorer_hashes,
        }
    )


@dataclass(frozen=True)
class DomainIdentity:
    """What a plan must know of a domain; the fingerprint of one without files is a placeholder."""

    card: DatasetCard
    fingerprint: str
    sources: Sources = field_of(default_factory=dict)


def identify(domains: Mapping[str, Domain]) -> dict[str, DomainIdentity]:
    """Data set → what a plan must know of its domain."""
    return {
        d: DomainIdentity(w.dataset.card, fingerprint(w), sources_of_domain(w))
        for d, w in domains.items()
    }


def _made(registry: Registry[T], name: str, **parts: type) -> T:
    """What a registry makes; UsageError where its code fails or lacks one of these parts."""
    try:
        made = registry.create(name)
        wrong = [p for p, kind in parts.items() if not isinstance(getattr(made, p, None), kind)]
        if config := getattr(made, "config", None):
            hash_json(config.model_dump(mode="json"))
    except (BenchError, KeyboardInterrupt):
        raise
    except BaseException as error:
        fault = f"{registry.kind} '{name}' cannot be made: {as_line(error)}"
        raise UsageError(fault, hint="mend its code") from error
    if wrong:
        kinds = ", ".join(f"no '{p}' that is a {parts[p].__name__}" for p in wrong)
        raise UsageError(f"{registry.kind} '{name}' has {kinds}", hint="mend its code")
    return made


def make_method(name: str, suite: Suite) -> EditingMethod:
    """A method with its defaults, over them the suite's settings, within the suite's budget."""
    info_of(name)
    method = _made(METHODS, name, config=MethodConfig)
    fields = type(method.config).model_fields
    settings = dict(suite.settings.get(name, {}))
    where = f"settings of '{name}' in suite '{suite.name}'"
    for field in settings:
        if field not in fields:
            raise unknown_name("setting", field, fields, where)
    try:
        method = METHODS.create(name, **settings) if settings else method
        own = getattr(method.config, "fit_steps", None)
        if suite.fit_image_steps is None or own is None:
            return method
        # At most what the authors take: a method is not given more than it asks for.
        within = max(1, suite.fit_image_steps // method.config.image_steps)
        return METHODS.create(name, **{**settings, "fit_steps": min(own, within)})
    except ValidationError as error:
        raise UsageError(first_fault(error), where=where) from error


def info_of(name: str) -> MethodInfo:
    """What a method declares, read from its class: nothing is constructed."""
    info = getattr(METHODS.factory(name), "info", None)
    if not isinstance(info, MethodInfo):
        hint = "register a class with such an 'info'"
        raise UsageError(f"method '{name}' has no MethodInfo", hint=hint)
    return info


def card_of(dataset: str) -> DatasetCard:
    """The card of a data set, as far as it is known without its files."""
    return _made(DATASETS, dataset, card=DatasetCard).card


def open_domains(config: RunConfig) -> dict[str, Domain]:
    """Data set → its domain; UsageError if files are absent, InvalidBenchmarkError if damaged."""
    return {d: open_domain(d, config) for d in config.datasets}


def preparation_of(dataset: str, config: RunConfig) -> Preparation | None:
    """What a data set's domain lacks and can make; None where that is nothing."""
    factory = DOMAINS.factory(dataset) if dataset in DOMAINS else None
    if not isinstance(factory, Prepares):
        return None
    return factory.preparation(config.device, config.options)


def prepare_domains(config: RunConfig, progress: Progress) -> None:
    """Make what the domains of a run lack, such as a classifier; raises as `open_domains`."""
    for dataset in config.datasets:
        if (lacking := preparation_of(dataset, config)) is not None:
            with (
                progress.task(f"{dataset}: {lacking.what}", 1),
                progress.costs.phase("preparation"),
            ):
                lacking.make()


def open_domain(dataset: str, config: RunConfig) -> Domain:
    """The domain of one data set; raises as `open_domains`."""
    domain = DOMAINS.create(dataset, config.device, config.options)
    if not isinstance(domain, Domain):
        raise UsageError(f"domain '{dataset}' is no Domain", hint="mend its code")
    return domain


def plan(config: RunConfig, domains: Mapping[str, DomainIdentity]) -> tuple[Cell, ...]:
    """Every cell of a run, in the order in which it is run.

    References come with the methods that were asked for, before them. A control that is matched to
    a method comes after that method. Random directions are no cells: they are run once for a whole
    data set. `domains` are by data set, as from `identify`.
    Raises UsageError if nothing is left to do, such as concepts that no chosen data set has, or
    there are no pretrained weights where they were said to be, InvalidBenchmarkError if a control
    is missing.
    """
    check_controls()
    asked = [n for n in config.methods if not info_of(n).control]
    if config.suite.references:
        asked = [*(n for n in METHODS if info_of(n).reference and n not in asked), *asked]
    methods = {n: make_method(n, config.suite) for n in asked}
    controls = {n: make_method(n, config.suite) for n in METHODS if info_of(n).control}
    alone = {n: m for n, m in controls.items() if not (m.info.beside or m.info.draws)}
    beside = {n: m for n, m in controls.items() if m.info.beside}
    cells: list[Cell] = []
    for dataset in config.datasets:
        card = domains[dataset].card
        concepts = concepts_of(card, config.concepts, config.suite.max_concepts)
        for place, concept in enumerate(concepts):
            make = partial(_cell, config, domains[dataset], concept)
            cells += [make(n, m) for n, m in alone.items()]
            for name, method in methods.items():
                fits = 1 if method.info.deterministic else config.fit_seeds
                cells += [make(name, method, fit_seed=fit) for fit in range(fits)]
                if place < MATCHED_CONCEPTS:
                    matched = [p for p in beside.items() if p[1].info.space == method.info.space]
                    cells += [make(n, m, (name, method)) for n, m in matched]
    if not cells:
        raise UsageError("there is nothing to run", hint="choose other concepts or data sets")
    return tuple(cells)


def random_directions(config: RunConfig) -> list[tuple[str, int]]:
    """(control, number) of every random direction that is run on a data set."""
    names = [name for name in METHODS if info_of(name).draws]
    return [(name, draw) for name in names for draw in range(config.suite.random_draws)]


def done(store: RecordStore, cell: Cell) -> CellRecord | None:
    """The finished record of this very cell: same inputs, settings and code; None without one."""
    record = _finished(store, cell)
    return None if record and changed(record.provenance.sources, cell.sources) else record


def edited_since(store: RecordStore, cell: Cell) -> tuple[str, ...]:
    """Other people's code that was edited after it made a cell, which is therefore not done."""
    record = _finished(store, cell)
    return () if record is None else changed(record.provenance.sources, cell.sources)


def own_record(store: RecordStore, cell: Cell) -> CellRecord | None:
    """The record of this very cell, whatever came of it; another's with its name is none."""
    record = store.find(cell.store_key)
    return record if record and record.artifacts.get(KEY_ARTIFACT) == cell.key else None


def _finished(store: RecordStore, cell: Cell) -> CellRecord | None:
    record = own_record(store, cell)
    return record if record and record.status == "done" else None


def check_images(config: RunConfig, domains: Mapping[str, Domain]) -> None:
    """Refuse, with a UsageError, a suite that asks a data set for more images than it has."""
    suite = config.suite
    asked = suite.split_sizes
    for name, domain in domains.items():
        if not isinstance(domain.dataset, CountsImages):
            continue
        there = {split: domain.dataset.count(split) for split in asked}
        short = [f"{s} images: {there[s]:,} there, {n:,} asked for"
                 for s, n in asked.items() if there[s] < n]  # fmt: skip
        if short:
            raise UsageError(
                f"too few images for suite '{suite.name}': {'; '.join(short)}",
                where=name,
                hint="give more images or a smaller suite",
            )


def pretrained_file(config: RunConfig, method: EditingMethod, concept: Concept) -> Path | None:
    """The file in the place of a fit, or None; UsageError where the folder has none for it."""
    name = method.info.name
    if name not in config.method_weights:
        return None
    if not isinstance(method, SupportsPretrained):
        raise UsageError(f"'{name}' runs on no pretrained weights", where="--method-weights")
    path = method.pretrained_file(config.method_weights[name], concept)
    if not path.is_file():
        raise InvalidBenchmarkError(
            "unreadable weights: no file", where=str(path), hint="put a file of weights there"
        )
    return path


def fit_work(method: EditingMethod, suite: Suite) -> float:
    """Estimated U-Net calls of a fit: the method's own word, or one pass per image and step."""
    if method.info.control or method.info.supervision == "none":
        return 0.0
    if isinstance(method, SupportsFitEstimate):
        return method.fit_unet_calls(power_timesteps(suite.num_steps, _T_MAX, suite.timestep_power))
    settings = method.config.model_dump()
    return float(settings.get("fit_steps", 0) * method.config.image_steps)


def work_of_fit(method: EditingMethod, config: RunConfig) -> float:
    """`fit_work` in a run: nothing where somebody else's weights take the fit's place."""
    return 0.0 if method.info.name in config.method_weights else fit_work(method, config.suite)


def shared_work(
    config: RunConfig, splits: Sequence[Split] = ("train", "validation", "test")
) -> float:
    """Estimated U-Net calls that all methods share: inverting images and regenerating them."""
    suite = config.suite
    images = sum(suite.split_sizes[split] for split in splits)
    return float(2 * images * suite.num_steps * len(config.datasets))


def null_work(suite: Suite) -> float:
    """Estimated U-Net calls of the random directions of one data set."""
    return float(suite.random_draws * NULL_IMAGES * len(suite.strengths) * suite.num_steps)


def concepts_of(
    card: DatasetCard, names: tuple[str, ...] | None, limit: int | None = None
) -> list[Concept]:
    """A data set's concepts of these names, in this order; None for its first `limit` or all."""
    if names is None:
        return list(card.concepts[:limit])
    by_name = {c.name: c for c in card.concepts}
    return [by_name[n] for n in names if n in by_name]


Named = tuple[str, EditingMethod]


def _identity(name: str, method: EditingMethod) -> list[Any]:
    return [name, method.info.version, method.config.model_dump(mode="json")]


def _cell(
    config: RunConfig,
    identity: DomainIdentity,
    concept: Concept,
    name: str,
    method: EditingMethod,
    partner: Named | None = None,
    fit_seed: int = 0,
) -> Cell:
    """A cell; its key holds what determines its pixels and scores: no metric and no other cell."""
    card = identity.card
    key: dict[str, Any] = {
        "stage": STAGE_VERSION,
        "run": config.key(),
        "world": identity.fingerprint,
        "dataset": [card.name, card.revision],
        "concept": asdict(concept),
        "method": _identity(name, method),
        "beside": [*_identity(*partner), MATCHED_IMAGES] if partner else None,
        "fit_seed": fit_seed,
    }
    own: list[Named] = [(name, method), *([partner] if partner else [])]
    weights = [pretrained_file(config, m, concept) for _, m in own]
    if any(weights):
        key["pretrained"] = [hash_file(path) for path in weights if path is not None]
    return Cell(
        domain_kind=card.domain_kind,
        dataset=card.name,
        method=name,
        concept=concept,
        beside=partner[0] if partner else None,
        control=method.info.control,
        fit_seed=fit_seed,
        work=_work(method, config),
        key=hash_json(key),
        inputs=key,
        sources={**identity.sources, **sources_of_methods(n for n, _ in own)},
    )


def _work(method: EditingMethod, config: RunConfig) -> float:
    """Estimated U-Net calls of a cell: its fit, and every image, strength and step."""
    suite, info = config.suite, method.info
    if info.space == "pixels" or (info.space == "other" and info.control):
        return 0.0
    if info.beside:  # one strength only
        return float(min(MATCHED_IMAGES, suite.test_images_per_concept) * suite.num_steps)
    # Once more where the grid has led.
    edits = suite.validation_images * (len(suite.strengths) + 1)
    # Each effect, the flip rate, and where edits are most precise.
    edits += suite.test_images_per_concept * (len(suite.effects) + 2)
    return float(edits * suite.num_steps) + work_of_fit(method, config)


PRIMARY = "primary"
"""Stands in `guided_by` for the classifier that comes first in the domain."""


def scoring_classifiers(info: MethodInfo, classifiers: Sequence[str]) -> tuple[str, ...]:
    """A domain's classifiers, the method's primary one first: one that did not guide it.

    A control stays with the domain's order: it shows how such a classifier is fooled.
    Raises UsageError if every classifier guided the method.
    """
    guides = () if info.control else guides_of(info, classifiers)
    if all(name in guides for name in classifiers):
        raise UsageError(
            f"'{info.name}' was guided by every classifier that could judge it",
            hint="give the domain a classifier that the method has not seen",
        )
    return tuple(sorted(classifiers, key=lambda name: name in guides))


def classifiers_of_record(record: CellRecord, classifiers: Sequence[str]) -> tuple[str, ...]:
    """`scoring_classifiers` of a method that has been run: its primary one stays the same."""
    first, guides = record.judges[:1], () if record.control else record.guided_by
    return tuple(sorted(classifiers, key=lambda name: (name not in first, name in guides)))


def guides_of(info: MethodInfo, classifiers: Sequence[str]) -> tuple[str, ...]:
    """Names of the scorers that guided a method."""
    return tuple(classifiers[0] if name == PRIMARY else name for name in info.guided_by)


def check_guides(config: RunConfig, domains: Mapping[str, Domain]) -> None:
    """Refuse, with a UsageError, a method that only its own guide would score."""
    for dataset, domain in domains.items():
        names = [c.info.name for c in domain.classifiers]
        others = {domain.score_clip.info.name: "score_clip", domain.embedder.info.name: "embedder"}
        for method in config.methods:
            info = info_of(method)
            try:
                scoring_classifiers(info, names)
            except UsageError as error:
                raise UsageError(error.what, where=dataset, hint=error.hint) from error
            if seen := sorted(set(info.guided_by) & set(others)):
                raise UsageError(
                    f"'{method}' was guided by '{seen[0]}', which alone scores what it scores",
                    where=dataset,
                    hint="guide it by other weights: what guides a method never scores it",
                )
