"""Edits with parts of what a finished run has fitted, scored on its test images as its own were."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from joblib import Parallel, delayed, parallel_config
from pydantic import Field, TypeAdapter
from torch import Tensor

from casl_bench.analysis.analyse import group_cells
from casl_bench.analysis.measure import ScoredCell, measurements
from casl_bench.core.errors import InputError, UsageError
from casl_bench.core.files import hash_json, write_text
from casl_bench.domains.dataset import Concept
from casl_bench.methods.casl import CaslEditor, top_mask
from casl_bench.methods.h_space_editor import HSpaceEditor
from casl_bench.methods.method import Editor
from casl_bench.models.micro_batch import one_thread
from casl_bench.results.provenance import package_versions
from casl_bench.results.record import CellRecord, Finite, Frozen, Measurement, headline_level
from casl_bench.results.run_folder import CellKey, RecordStore
from casl_bench.results.score_table import ScoreTable
from casl_bench.results.stored_cells import read_cells
from casl_bench.runs.artifacts import InvertedSplit
from casl_bench.runs.dataset import DatasetRun
from casl_bench.runs.names import load_registries
from casl_bench.runs.plan import info_of, make_method, open_domains, scoring_classifiers
from casl_bench.runs.progress import SilentProgress, Stopwatch
from casl_bench.runs.run_lock import config_of_run
from casl_bench.runs.suites import RunConfig
from casl_bench.studies import Name, parse_study, to_lines


class PartOfMap(HSpaceEditor):
    """CASL's edit by a part of its map: delta_h = gain (W_mask z + b).

    The mask [d_sae] bool says which latents take part.
    """

    def __init__(self, editor: CaslEditor, mask: Tensor) -> None:
        super().__init__(editor.backbone, editor.window, editor.noise_seed, editor.cost)
        self.editor, self.mask = editor, mask

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        """[n, C, h, w] at strength 1."""
        part: Tensor = self.editor.alignment(h, t, mask=self.mask)
        return self.editor.gain * part


class WithoutLatents(HSpaceEditor):
    """The image without some latents: delta_h = -D(z_mask), D the SAE's decoder without its bias.

    Whatever else h holds stays, what the SAE does not reconstruct included. Strength 1 takes the
    latents of the mask [d_sae] bool away, at the timesteps at which CASL edits.
    """

    def __init__(self, editor: CaslEditor, mask: Tensor) -> None:
        super().__init__(editor.backbone, editor.window, editor.noise_seed, editor.cost)
        self.sae, self.mask = editor.alignment.sae, mask

    def unit_delta_h(self, h: Tensor, t: int, temb: Tensor) -> Tensor:
        """[n, C, h, w] at strength 1."""
        return -self.sae.decode_delta(self.sae.encode(h, t) * self.mask[:, None, None], t)


def alike_latents(top: Tensor, activation: Tensor) -> Tensor:
    """[d_sae] bool: for each latent of `top` another that is as active, the strongest first.

    What taking latents away does depends on how much they are active; a control sampled among all
    latents, most of which are inactive, would do nothing.

    Args:
        top: [d_sae] bool; InputError if it is more than half of the latents.
        activation: [d_sae] mean activation.
    """
    free = (~top).clone()
    if int(top.sum()) > int(free.sum()):
        raise InputError(f"{int(top.sum())} of {len(top)} latents leave too few to compare with")
    chosen = torch.zeros_like(top)
    order = torch.argsort(activation, descending=True, stable=True)
    for latent in order[top[order]].tolist():
        distance = (activation - activation[latent]).abs().masked_fill(~free, torch.inf)
        nearest = int(distance.argmin())
        chosen[nearest], free[nearest] = True, False
    return chosen


COMMAND = "casl-bench study paper-questions"
ROWS = "paper_questions.jsonl"
PAGE = "paper_questions.md"
FIGURE = "paper_questions.png"
MAP, STEER = "casl", "casl_steer"
"""The edit with the whole map, and with its top-k latents."""


# What the study keeps: one JSON line for the study, one for each variant of an edit.

Question = Literal["size", "ablation", "absence"]
"""CASL-Steer at several k; CASL's edit without some latents; an image without some latents."""
Latents = Literal["top", "alike", "none", "all"]
"""Best aligned ones; as many others that are as active; no latent; every one (b is left)."""


class Header(Frozen):
    """What all rows rest on: versions, the run's suite and seed, and numbers of latents.

    The packages are python and those that decide numbers.
    """

    kind: Literal["study"] = "study"
    version: int
    command: Name
    suite: Name
    seed: int
    ks: tuple[int, ...]
    packages: dict[Name, Name]


class VariantRow(Frozen):
    """One variant of an edit on the test images of one concept, by the primary classifier.

    Attributes:
        question: which it belongs to.
        latents: that are kept ("size") or taken away, k of them.
        reached: whether validation images reached the effect asked for; None where nothing was
            asked for.
        full_effect: mean target change of the perfect edit, in sd.
    """

    kind: Literal["variant"] = "variant"
    dataset: str
    concept: str
    question: Question
    latents: Latents
    k: int = Field(ge=0)
    strength: Finite
    reached: bool | None
    full_effect: Finite = Field(gt=0)
    measurements: dict[str, Measurement]

    @property
    def effect(self) -> float | None:
        """Target change as asked, in shares of the perfect edit's."""
        found = self.measurements.get("signed_target_change")
        return None if found is None or found.value is None else found.value / self.full_effect


@dataclass(frozen=True)
class LatentRows:
    """All rows, in the order in which they were made."""

    header: Header
    rows: tuple[VariantRow, ...]

    def to_jsonl(self) -> str:
        """One line each, the header first; equal rows give equal bytes."""
        return to_lines((self.header, *self.rows))

    @classmethod
    def from_jsonl(cls, text: str, where: str = "") -> LatentRows:
        """Read what `to_jsonl` wrote; InvalidBenchmarkError on anything else."""
        header, rows = parse_study(text, Header, TypeAdapter(VariantRow), where)
        return cls(header, tuple(rows))


STUDY_VERSION = 2
"""Raise it whenever a row would come out otherwise."""
KEPT = (
    "signed_target_change", "mean_collateral", "epr_signed", "epr_plus", "flip_rate",
    "factor_epr", "pixel_locality",
)  # fmt: skip
"""Measurements that a row keeps."""


class LatentStudy:
    """The study of one data set, with the fits of a finished run."""

    def __init__(self, config: RunConfig, dataset: str, ks: Sequence[int]) -> None:
        self.config, self.dataset, self.ks = config, dataset, tuple(ks)
        self.store = RecordStore(config.out)
        self.run = DatasetRun(open_domains(config)[dataset], config, self.store, SilentProgress())
        self.cells, self.artifacts = self.run.cells, self.run.artifacts
        self.scores = next(d for d in group_cells(read_cells(config.out)) if d.name == dataset)

    def rows(self, concept: Concept) -> Iterator[VariantRow]:
        """Every variant of one concept; UsageError if the run has not finished both methods."""
        yield from self._sizes(concept)
        yield from self._ablations(concept)
        yield from self._absences(concept)

    def _sizes(self, concept: Concept) -> Iterator[VariantRow]:
        """CASL-Steer with k latents, each k at the strength that gives the headline's effect."""
        finished_record(self.store, self.dataset, STEER, concept.name)
        method = make_method(STEER, self.config.suite)
        for k in self.ks:
            settings = method.config.model_dump() | {"k": k}
            sized = type(method)(**settings)
            editor, _ = self.cells.fitting.fit(sized, concept, Stopwatch(), 0.0)
            matching, _ = self.cells.match_strengths(editor, info_of(STEER), concept)
            strength, headline = matching.strength, headline_level(matching.levels)
            reached = headline is not None and headline.status == "reached"
            table = self._scored(concept, editor, strength)
            yield self._row(concept, "size", "top", k, table, strength, reached)

    def _ablations(self, concept: Concept) -> Iterator[VariantRow]:
        """CASL's edit at its own strength, some of its latents taken away; the run's own first."""
        editor, record = self._casl(concept)
        own = self.scores.by_place[CellKey.of(record)].scores
        assert record.strength is not None and own is not None  # it is finished
        strength = record.strength
        yield self._row(concept, "ablation", "none", 0, own, strength)
        d_sae = editor.alignment.sae.d_sae
        every: tuple[Latents, int, Tensor] = ("all", d_sae, torch.ones(d_sae, dtype=torch.bool))
        for latents, k, mask in (*self._masks(editor), every):
            part = self._scored(concept, PartOfMap(editor, ~mask), strength)
            yield self._row(concept, "ablation", latents, k, part, strength)

    def _absences(self, concept: Concept) -> Iterator[VariantRow]:
        """Images that have the attribute, some latents taken away; none where no image has it."""
        editor, _ = self._casl(concept)
        there = self.artifacts.concept_split(
            self.artifacts.test, concept, self.config.suite.test_images_per_concept, present=True
        )
        if not len(there.batch):
            return
        for latents, k, mask in self._masks(editor):
            without = self._scored(concept, WithoutLatents(editor, mask), 1.0, there)
            yield self._row(concept, "absence", latents, k, without, 1.0)

    def _masks(self, editor: CaslEditor) -> Iterator[tuple[Latents, int, Tensor]]:
        scores = editor.alignment.latent_scores()
        activation = editor.alignment.mean_activation.mean((1, 2))
        for k in self.ks:
            top = top_mask(scores, k)
            yield "top", k, top
            yield "alike", k, alike_latents(top, activation)

    def _casl(self, concept: Concept) -> tuple[CaslEditor, CellRecord]:
        """CASL as the run fitted it, and what the run found."""
        record = finished_record(self.store, self.dataset, MAP, concept.name)
        editor, _ = self.cells.fitting.editor(MAP, concept, Stopwatch())
        assert isinstance(editor, CaslEditor)
        return editor, record

    def _scored(
        self, concept: Concept, editor: Editor, strength: float, split: InvertedSplit | None = None
    ) -> ScoreTable:
        """Edits of a split, of the test images that lack the attribute where None."""
        if split is None:
            count = self.config.suite.test_images_per_concept
            split = self.artifacts.concept_split(self.artifacts.test, concept, count)
        edits = self.cells.edit_images(editor, split, (strength,), None)
        return self.cells.scorers.table(concept, split.inversions, edits, (strength,))[0]

    def _row(
        self,
        concept: Concept,
        question: Question,
        latents: Latents,
        k: int,
        table: ScoreTable,
        strength: float,
        reached: bool | None = None,
    ) -> VariantRow:
        """Measured by the primary classifier, as the run's own edits are."""
        primary = scoring_classifiers(info_of(MAP), self.cells.scorers.names)[0]
        cell = ScoredCell(table, concept.attribute, (primary,), self.scores.scales)
        # A method is compared with random directions on images that lack the attribute.
        null = [] if question == "absence" else self.scores.random_directions(concept.name)
        found = measurements(cell, strength, self.config.seed, null)
        return VariantRow(
            dataset=self.dataset,
            concept=concept.name,
            question=question,
            latents=latents,
            k=k,
            strength=strength,
            reached=reached,
            full_effect=self.cells.scales.full_effect(concept, primary),
            measurements={name: found[name] for name in KEPT if name in found},
        )


def finished_record(store: RecordStore, dataset: str, method: str, concept: str) -> CellRecord:
    """A run's record of a method; UsageError if there is none, or it is not done."""
    record = store.find(CellKey(dataset, "edit", method, None, concept))
    if record is None or record.status != "done":
        raise UsageError(
            f"the run has not finished '{method}' on '{concept}' of {dataset}",
            where=str(store.run),
            hint="run it with --methods all first",
        )
    return record


def make_rows(
    run: Path,
    command: str,
    *,
    ks: Sequence[int],
    jobs: int = 1,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> LatentRows:
    """Every variant of every concept of a finished run, by `jobs` processes, one concept each.

    What is done is kept in the run folder, concept by concept: an interrupted call goes on there.

    Args:
        run: the run folder.
        command: as the rows are to say that they were made.
        ks: numbers of latents, each at most half of the SAE's.
        jobs: processes.
        cache: of the run; None for the one that runs share by default.
        say: takes a line per finished concept.

    Raises:
        UsageError: if it is no run folder, or holds no finished CASL and CASL-Steer.
    """
    load_registries()
    store = RecordStore(run)
    done = [r for r in store if (r.kind, r.method, r.status) == ("edit", MAP, "done")]
    if not done:
        raise UsageError(
            f"no record of '{MAP}'", where=str(run), hint="give the folder of a finished run"
        )
    datasets = tuple(dict.fromkeys(r.dataset for r in done))
    config = config_of_run(run, datasets, (MAP, STEER), cache)
    todo = [(r.dataset, r.concept or "") for r in done if not r.fit_seed]
    for dataset, concept in todo:
        finished_record(store, dataset, STEER, concept)
    found: dict[tuple[str, str], list[VariantRow]] = {}
    with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
        parallel = Parallel(return_as="generator_unordered", pre_dispatch=jobs)
        for dataset, concept, rows in parallel(
            delayed(_of_concept)(config, dataset, concept, tuple(ks)) for dataset, concept in todo
        ):
            found[dataset, concept] = rows
            say(f"{dataset} / {concept}: {len(found)} of {len(todo)} concepts done")
    header = Header(
        version=STUDY_VERSION,
        command=command,
        suite=f"{config.suite.name} version {config.suite.version}",
        seed=config.seed,
        ks=tuple(ks),
        packages=package_versions(),
    )
    return LatentRows(header, tuple(row for place in todo for row in found[place]))


_studies: dict[str, LatentStudy] = {}
"""Of a process: the data set that it is at."""


@one_thread()
def _of_concept(
    config: RunConfig, dataset: str, concept: str, ks: tuple[int, ...]
) -> tuple[str, str, list[VariantRow]]:
    """In a worker: a concept's rows, from the run folder or made now."""
    load_registries()
    store = RecordStore(config.out)
    ids = [finished_record(store, dataset, m, concept).record_id for m in (MAP, STEER)]
    key = hash_json([STUDY_VERSION, list(ks), list(KEPT), *ids])
    path = config.out / "studies" / "paper_questions" / f"{key[:32]}.jsonl"
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        return dataset, concept, [VariantRow.model_validate_json(line) for line in lines]
    if dataset not in _studies:
        _studies.clear()  # one domain at a time
        _studies[dataset] = LatentStudy(config, dataset, ks)
    study = _studies[dataset]
    card = study.run.domain.dataset.card
    rows = list(study.rows(next(c for c in card.concepts if c.name == concept)))
    write_text(path, "".join(row.model_dump_json() + "\n" for row in rows))
    return dataset, concept, rows
