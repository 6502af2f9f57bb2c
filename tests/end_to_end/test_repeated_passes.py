"""All methods on the toy domain, watched: what passes through a network, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from casl_bench_baselines.asyrp import Asyrp
from torch import Tensor

from casl_bench.conformance.toy_domain import ToyTasks, toy_domain
from casl_bench.methods.casl import Casl
from casl_bench.methods.method import METHODS
from casl_bench.results.record import RunRecord
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs import executor as runner
from casl_bench.runs.plan import info_of
from casl_bench.runs.progress import PhaseCosts, SilentProgress
from casl_bench.runs.suites import RunConfig
from tests.support.pass_audit import DECODER, ENCODER, PassAudit
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.slow

NO_SKIPS = "x_t and h of an inversion are kept, but no skip connections: they are ten times as much"
TWICE = "the toy data set draws one picture twice"
SAME_DRAWS = "entrants are given the same random numbers, and so the same pictures to learn from"
FEATURES = "features of a reconstruction are too much to keep from cell to cell: once a cell"
NOTHING_ADDED = "where a method adds nothing to an image's h, every strength is decoded alike"
STILL = "an edit may leave a picture as it is, or be that of another entrant"

NEEDED = {
    (ENCODER, "inversion", "edit"): NO_SKIPS,
    (ENCODER, "inversion", "choose strength"): NO_SKIPS,
    (ENCODER, "inversion", "fit"): NO_SKIPS,
    (ENCODER, "inversion", "SAE downstream"): NO_SKIPS,
    (ENCODER, "inversion", "inversion"): TWICE,
    (ENCODER, "fit", "choose strength"): "h_pca chooses on validation images, from their x_T on",
    (DECODER, "inversion", "edit"): "an asymmetric step has the unedited eps of x_T as well",
    (DECODER, "inversion", "choose strength"): "likewise",
    (DECODER, "inversion", "fit"): "what starts at zero edits nothing in its first step",
    (DECODER, "inversion", "SAE downstream"): "eps that the SAE's is compared with is not kept",
    (DECODER, "inversion", "inversion"): TWICE,
    (ENCODER, "fit", "fit"): SAME_DRAWS,
    (DECODER, "fit", "fit"): SAME_DRAWS,
    (DECODER, "choose strength", "choose strength"): NOTHING_ADDED,
    (DECODER, "edit", "edit"): NOTHING_ADDED,
    (DECODER, "fit", "choose strength"): "h_pca chooses on validation images, from their x_T on",
    ("toy_embedder", "choose strength", "choose strength"): FEATURES,
    ("toy_embedder", "score", "score"): FEATURES,
    ("toy_factors", "score", "score"): STILL,
    ("toy_guide, images", "fit", "fit"): SAME_DRAWS,
    ("toy_reader", "choose strength", "choose strength"): TWICE,
    ("toy_reader", "edit", "edit"): "the pixel attack climbs from where it begins",
    ("toy_reader", "edit", "score"): "what the pixel attack has found is scored",
    ("toy_reader", "score", "edit"): "the pixel attack asks for itself",
    ("toy_reader", "score", "score"): STILL,
    ("toy_scorer, images", "score", "score"): STILL,
    ("toy_second_reader", "choose strength", "choose strength"): TWICE,
    ("toy_second_reader", "score", "score"): STILL,
}
"""What is passed twice, and why."""


@dataclass(frozen=True)
class Watched:
    """A finished run."""

    audit: PassAudit
    costs: PhaseCosts
    records: list[RunRecord]


@pytest.fixture(scope="module")
def run(toy_registered: None, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    domain, progress = toy_domain(), SilentProgress()
    folder = tmp_path_factory.mktemp("all")
    config = RunConfig(
        methods=tuple(name for name in METHODS.names() if not info_of(name).control),
        datasets=("toy_shapes",), concepts=(domain.dataset.card.concepts[0].name,),
        suite=tiny_suite(extrapolate=True), seed=0, device="cpu", out=folder / "run",
        cache=folder / "cache",
    )  # fmt: skip
    audit = PassAudit(progress.costs)
    with pytest.MonkeyPatch.context() as patch, audit.watch(domain):
        patch.setattr(runner, "open_domains", lambda config: {"toy_shapes": domain})
        assert runner.run(config, progress) == 0
    return Watched(audit, progress.costs, list(RecordStore(config.out)))


def test_nothing_passes_twice_without_a_reason(run: Watched) -> None:
    assert set(run.audit.repeats) <= set(NEEDED), set(run.audit.repeats) - set(NEEDED)


def test_scorers_look_at_a_reconstruction_once(run: Watched) -> None:
    for name in ("toy_factors", "toy_scorer, images", "toy_second_reader"):
        seen = sum(count for (network, _), count in run.audit.rows.items() if network == name)
        again = sum(count for (network, *_), count in run.audit.repeats.items() if network == name)
        assert 0 <= again < 0.05 * seen, name
    assert not any("texts" in network for network, *_ in run.audit.repeats)


def test_gradients_are_kept_by_fits_alone_and_by_the_attack(run: Watched) -> None:
    assert ("toy_reader", "edit") in run.audit.graphs  # the pixel attack
    assert {phase for network, phase in run.audit.graphs if network != "toy_reader"} == {"fit"}


def test_records_keep_their_part_of_the_passes(run: Watched) -> None:
    for phase in ("edit", "choose strength", "fit", "SAE downstream"):
        kept = sum(record.provenance.unet_passes.get(phase, 0.0) for record in run.records)
        assert kept == run.costs.passes[phase] > 0, phase
    assert run.costs.passes["inversion"] > 0
    assert run.costs.passes["other"] == run.costs.passes["score"] == 0


@pytest.mark.parametrize("method", [Casl(Casl.toy_config()), Asyrp(Asyrp.toy_config())])
def test_a_fit_back_propagates_below_the_injection_only(
    method: Casl | Asyrp, tmp_path: Path
) -> None:
    tasks, asked = ToyTasks(), {"down": [], "mid": [], "up": []}

    def note(name: str) -> object:
        def hook(module: object, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            tensors = output if isinstance(output, tuple) else (output,)
            asked[name].append(any(t.requires_grad for t in tensors if torch.is_tensor(t)))

        return hook

    unet = tasks.domain.backbone.unet
    for name, block in (("down", unet.down_blocks[0]), ("mid", unet.mid_block),
                        ("up", unet.up_blocks[-1])):  # fmt: skip
        block.register_forward_hook(note(name))
    method.fit(tasks.task(method.info, tmp_path / "work"))
    # The unedited trajectory beside it, and the asymmetric step's second pass, ask for none.
    assert not any(asked["down"]) and not any(asked["mid"])
    assert sum(asked["up"]) == method.config.fit_steps < len(asked["up"])
