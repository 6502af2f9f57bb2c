"""Edits with parts of what a finished run has fitted, scored on its test images as its own were."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from joblib import Parallel, delayed, parallel_config
from torch import Tensor

from casl_bench.concepts.alignment import top_mask
from casl_bench.core.content_hash import hash_json
from casl_bench.core.errors import UsageError
from casl_bench.core.files import write_text
from casl_bench.images.dataset import Concept
from casl_bench.methods.casl import CaslEditor
from casl_bench.methods.method import Editor
from casl_bench.records.provenance import package_versions
from casl_bench.records.record import Measurement, RunRecord
from casl_bench.records.record_store import CellKey, RecordStore
from casl_bench.runs.cells.dataset_run import DatasetRun
from casl_bench.runs.cells.levels import headline_name
from casl_bench.runs.cells.measuring import measurements
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.entrants import load_entrants
from casl_bench.runs.planning.plan import info_of, make_method, open_worlds
from casl_bench.runs.planning.run_folder import config_of_run
from casl_bench.runs.shared_work.artefacts import InvertedSplit
from casl_bench.runs.watching.progress import SilentProgress
from casl_bench.runs.watching.stopwatch import Stopwatch
from casl_bench.studies.paper_questions.latent_edits import (
    PartOfMap,
    WithoutLatents,
    alike_latents,
)
from casl_bench.studies.paper_questions.names import MAP, STEER
from casl_bench.studies.paper_questions.rows import (
    Header,
    LatentRows,
    Latents,
    Question,
    VariantRow,
)

STUDY_VERSION = 1
"""Raise it whenever a row would come out otherwise."""
KEPT = (
    "signed_target_change", "mean_collateral", "epr_signed", "epr_plus", "flip_rate",
    "factor_epr", "pixel_locality",
)  # fmt: skip
"""Measurements that a row keeps."""


class LatentStudy:
    """The study of one data set.

    Args:
        config: of the finished run, whose fits are taken.
        dataset: which.
        ks: numbers of latents.
    """

    def __init__(self, config: RunConfig, dataset: str, ks: Sequence[int]) -> None:
        self.config, self.dataset, self.ks = config, dataset, tuple(ks)
        self.store = RecordStore(config.out)
        self.run = DatasetRun(open_worlds(config)[dataset], config, self.store, SilentProgress())
        self.cells, self.artefacts = self.run.cells, self.run.artefacts

    def rows(self, concept: Concept) -> Iterator[VariantRow]:
        """Every variant of one concept.

        Raises:
            UsageError: if the run has not finished CASL and CASL-Steer on it.
        """
        yield from self._sizes(concept)
        yield from self._ablations(concept)
        yield from self._absences(concept)

    def _sizes(self, concept: Concept) -> Iterator[VariantRow]:
        """CASL-Steer with k latents, each k at the strength that gives the headline's effect."""
        finished_record(self.store, self.dataset, STEER, concept.name)
        method = make_method(STEER, self.config.suite)
        for k in self.ks:
            settings = method.config.model_dump() | {"k": k}
            sized = type(method)(**settings)  # type: ignore[call-arg]
            editor, _ = self.cells.fitting.fit(sized, concept, Stopwatch(), 0.0)
            matching, _ = self.cells.match_strengths(editor, info_of(STEER), concept)
            headline = headline_name(self.config.suite)
            status = next(level.status for level in matching.levels if level.name == headline)
            yield self._row(
                concept, "size", "top", k, editor, matching.strength, self._lacking(concept),
                reached=status == "reached",
            )  # fmt: skip

    def _ablations(self, concept: Concept) -> Iterator[VariantRow]:
        """CASL's edit at its own strength, some of its latents taken away; the run's own first."""
        editor, record = self._casl(concept)
        assert record.strength is not None and record.full_effect is not None  # it was matched
        strength = record.strength
        yield VariantRow(
            dataset=self.dataset,
            concept=concept.name,
            question="ablation",
            latents="none",
            k=0,
            strength=strength,
            reached=None,
            full_effect=record.full_effect,
            measurements=_kept(record.measurements),
        )
        for latents, k, mask in self._masks(editor):
            part = PartOfMap(editor, ~mask, bias=True)
            yield self._row(concept, "ablation", latents, k, part, strength, self._lacking(concept))
        d_sae = editor.alignment.sae.d_sae
        bias = PartOfMap(editor, torch.zeros(d_sae, dtype=torch.bool), bias=True)
        yield self._row(concept, "ablation", "all", d_sae, bias, strength, self._lacking(concept))

    def _absences(self, concept: Concept) -> Iterator[VariantRow]:
        """Images that have the attribute, some latents taken away; none where no image has it."""
        editor, _ = self._casl(concept)
        there = self.artefacts.concept_split(
            self.artefacts.test, concept, self.config.suite.test_images_per_concept, present=True
        )
        if not len(there.batch):
            return
        for latents, k, mask in self._masks(editor):
            yield self._row(
                concept, "absence", latents, k, WithoutLatents(editor, mask), 1.0, there
            )

    def _masks(self, editor: CaslEditor) -> Iterator[tuple[Latents, int, Tensor]]:
        scores = editor.alignment.latent_scores()
        activation = editor.alignment.mean_activation.mean((1, 2))
        for k in self.ks:
            top = top_mask(scores, k)
            yield "top", k, top
            yield "alike", k, alike_latents(top, activation)

    def _casl(self, concept: Concept) -> tuple[CaslEditor, RunRecord]:
        """CASL as the run fitted it, and what the run found."""
        record = finished_record(self.store, self.dataset, MAP, concept.name)
        editor, _ = self.cells.fitting.editor(MAP, concept, Stopwatch())
        assert isinstance(editor, CaslEditor)
        return editor, record

    def _lacking(self, concept: Concept) -> InvertedSplit:
        count = self.config.suite.test_images_per_concept
        return self.artefacts.concept_split(self.artefacts.test, concept, count)

    def _row(
        self,
        concept: Concept,
        question: Question,
        latents: Latents,
        k: int,
        editor: Editor,
        strength: float,
        split: InvertedSplit,
        reached: bool | None = None,
    ) -> VariantRow:
        edits = self.cells.edit_images(editor, split, (strength,), None)
        table, _ = self.cells.scorers.table(concept, split.inversions, edits, (strength,))
        view = self.cells.yardstick.view(table, concept, info_of(MAP))
        # Random draws ran on images that lack the attribute: no null for the others.
        null = [] if question == "absence" else self.cells.null(self.dataset, concept)
        judge = view.judges[0]
        view = replace(view, judges=(judge,))
        found = measurements(view, strength, self.config.seed, null)
        return VariantRow(
            dataset=self.dataset,
            concept=concept.name,
            question=question,
            latents=latents,
            k=k,
            strength=strength,
            reached=reached,
            full_effect=self.cells.yardstick.full_effect(concept, judge),
            measurements=_kept(found),
        )


def _kept(found: Mapping[str, Measurement]) -> dict[str, Measurement]:
    return {name: found[name] for name in KEPT if name in found}


def finished_record(store: RecordStore, dataset: str, method: str, concept: str) -> RunRecord:
    """A run's record of a method.

    Raises:
        UsageError: if there is none, or it is not done.
    """
    record = store.find(CellKey(dataset, "edit", method, None, concept))
    if record is None or record.status != "done":
        raise UsageError(
            f"the run has not finished '{method}' on '{concept}' of {dataset}",
            where=str(store.run),
            mend="run it with --methods all first",
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
    """Every variant of every concept of a finished run.

    What is done is kept in the run folder, concept by concept: an interrupted call goes on there.

    Args:
        run: the run folder.
        command: as the rows are to say that they were made.
        ks: numbers of latents, each at most half of the SAE's.
        jobs: processes, one concept each.
        cache: of the run; None for the one that runs share by default.
        say: told of each concept that is done.

    Raises:
        UsageError: if it is no run folder, or holds no finished CASL and CASL-Steer.
    """
    load_entrants()
    store = RecordStore(run)
    done = [r for r in store if (r.kind, r.method, r.status) == ("edit", MAP, "done")]
    if not done:
        raise UsageError(
            f"no record of '{MAP}'", where=str(run), mend="give the folder of a finished run"
        )
    datasets = tuple(dict.fromkeys(r.dataset for r in done))
    config = config_of_run(run, datasets, (MAP, STEER), cache)
    todo = [(r.dataset, r.concept or "") for r in done if not r.fit_seed]
    for dataset, concept in todo:
        finished_record(store, dataset, STEER, concept)
    found: dict[tuple[str, str], list[VariantRow]] = {}
    # As many as the run had: fits of another number are others.
    threads = done[0].provenance.threads or max(1, (os.cpu_count() or 1) // jobs)
    with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=threads):
        parallel = Parallel(return_as="generator_unordered", pre_dispatch=jobs)
        for dataset, concept, rows in parallel(
            delayed(_of_concept)(config, dataset, concept, tuple(ks), threads)
            for dataset, concept in todo
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


def _of_concept(
    config: RunConfig, dataset: str, concept: str, ks: tuple[int, ...], threads: int
) -> tuple[str, str, list[VariantRow]]:
    """In a worker: a concept's rows, from the run folder or made now."""
    torch.set_num_threads(threads)
    load_entrants()
    store = RecordStore(config.out)
    ids = [finished_record(store, dataset, m, concept).record_id for m in (MAP, STEER)]
    key = hash_json([STUDY_VERSION, list(ks), list(KEPT), *ids])
    path = config.out / "studies" / "paper_questions" / f"{key[:32]}.jsonl"
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        return dataset, concept, [VariantRow.model_validate_json(line) for line in lines]
    if dataset not in _studies:
        _studies.clear()  # one world at a time
        _studies[dataset] = LatentStudy(config, dataset, ks)
    study = _studies[dataset]
    card = study.run.world.dataset.card
    rows = list(study.rows(next(c for c in card.concepts if c.name == concept)))
    write_text(path, "".join(row.model_dump_json() + "\n" for row in rows))
    return dataset, concept, rows
