"""Images that activate the aligned latents: found by a run's own key, ranked as they should be."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from casl_bench.cache.store import Cache, CacheKey
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.domains.rendered import ASSETS, DOMAINS
from casl_bench.methods.casl import Casl
from casl_bench.methods.method import FitCost
from casl_bench.models.backbone import EncoderState
from casl_bench.models.clip import ClipModel
from casl_bench.report.grouping import Group
from casl_bench.report.html.pages import Section, Sheets, Source, latents_section
from casl_bench.report.html.top_latents import alignment_fit_key, top_latents
from casl_bench.results.record import RunRecord
from casl_bench.results.run_folder import RecordStore
from casl_bench.runs.fits import FitStore, Fitting, StoredFit
from casl_bench.runs.progress import SilentProgress, Stopwatch
from casl_bench.sae.sae import HSpaceSae, SaeConfig, SparseAutoencoder

DATASET, TIMESTEPS = "rendered_faces", (0, 300, 600)
DRAWING = DOMAINS[DATASET].drawing
CONCEPT = DRAWING.concepts[0]
SIDE, GRID, IMAGES, CHANNELS = 16, 4, 5, 4


def casl_record(fake: ModuleType, sae: str = "5" * 64, **changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "method": "casl", "concept": CONCEPT.name, "backbone": "b" * 64,
        "artefacts": {"sae": sae}, "method_config": Casl().config.model_dump(mode="json"),
    }  # fmt: skip
    return fake.FakeRun(Path("unused"), [CONCEPT.name])._record("edit", **(fields | changes))


class FoundKey(Exception):
    """What a run looks for."""


def test_the_key_is_the_one_that_a_run_looks_under(fake: ModuleType, tmp_path: Path) -> None:
    """Of a run whose parts are stand-ins, down to the store that it asks for the fit."""
    card = SimpleNamespace(name=DATASET, revision="r1", attributes=DRAWING.attributes)
    world = SimpleNamespace(
        dataset=SimpleNamespace(card=card),
        backbone=SimpleNamespace(weights_hash="b" * 64),
        guide_clip=ClipModel.load(ASSETS / DATASET / "guide_clip"),
        classifiers=(None,),
    )
    artefacts: Any = SimpleNamespace(
        world=world,
        cache=Cache(tmp_path),
        config=SimpleNamespace(out=tmp_path, seed=0, device="cpu", method_weights={}),
        suite=SimpleNamespace(validation_images=3),
        sae=SimpleNamespace(content_hash="5" * 64),
        split_key=lambda split: CacheKey("inversions", {"split": split}),
        train=SimpleNamespace(inversions=None, trajectories=object()),
    )
    fitting = Fitting(artefacts, SilentProgress())

    def get(key: str, make: object, about: object) -> None:
        raise FoundKey(key)

    fitting.store.get = get  # type: ignore[method-assign, assignment]
    with pytest.raises(FoundKey) as asked:
        fitting.fit(Casl(), CONCEPT, Stopwatch(), 0.0)
    train, test = (CacheKey("inversions", {"split": split}).hash for split in ("train", "test"))
    assert alignment_fit_key(casl_record(fake), train) == str(asked.value)
    assert alignment_fit_key(casl_record(fake), test) != str(asked.value)


@pytest.mark.parametrize("changes", [{"world": "real"}, {"dataset": "mine"}, {"concept": "mine"}])
def test_no_key_where_the_guide_is_not_shipped(fake: ModuleType, changes: dict[str, str]) -> None:
    assert alignment_fit_key(casl_record(fake, **changes), "0" * 64) is None


def stored(folder: Path, values: dict[str, torch.Tensor]) -> TrajectoryStore:
    """Trajectories whose h is the same at all timesteps."""
    ids = [f"image-{i}" for i in range(IMAGES)]
    shapes = (3, SIDE, SIDE), (CHANNELS, GRID, GRID)
    store = TrajectoryStore.create(folder, ids, TIMESTEPS, *shapes)
    for step, t in enumerate(TIMESTEPS):
        empty = torch.zeros(IMAGES, 1)
        store.record(step, slice(0, IMAGES), EncoderState(values["x"], t, values["h"], empty, ()))
    store.finish()
    return store


@pytest.fixture
def artefacts(fake: ModuleType, own_cache: Path) -> tuple[RunRecord, dict[str, torch.Tensor]]:
    """A cache in which latent 2 is active at one place of image 3, and weaker in image 1."""
    cache = Cache(own_cache)
    sae = SparseAutoencoder(SaeConfig(d_in=CHANNELS, d_sae=CHANNELS, k=2))
    with torch.no_grad():
        sae.W_enc.copy_(torch.eye(CHANNELS))
        sae.W_dec.copy_(torch.eye(CHANNELS))
    steps = len(TIMESTEPS)
    whole = HSpaceSae(sae, TIMESTEPS, torch.zeros(steps, CHANNELS), torch.ones(steps))
    keys = {s: CacheKey("inversions", {"split": s, "count": IMAGES}) for s in ("train", "test")}
    cache.get_or_make(CacheKey("sae", {"activations": keys["train"].hash}), whole.save)
    values = {
        "x": torch.rand(IMAGES, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1,
        "h": torch.zeros(IMAGES, CHANNELS, GRID, GRID),
    }
    values["h"][3, 2, 0, 1], values["h"][1, 2, 2, 2] = 4.0, 1.0
    for of_split in keys.values():
        cache.get_or_make(of_split, lambda folder: stored(folder, values))
    record = casl_record(fake, whole.content_hash)
    key = alignment_fit_key(record, keys["train"].hash)
    assert key is not None
    W = torch.zeros(CHANNELS, CHANNELS)
    W[:, 2], W[:, 0] = 3.0, 1.0
    mean_activation = torch.ones(CHANNELS, GRID, GRID)
    state = {"W": W, "b": torch.zeros(CHANNELS), "mean_activation": mean_activation}
    FitStore(cache).get(key, lambda workspace: StoredFit(state, FitCost()), {})
    return record, values


def test_the_best_latent_shows_the_images_that_activate_it(
    artefacts: tuple[RunRecord, dict[str, torch.Tensor]], own_cache: Path, tmp_path: Path
) -> None:
    record, values = artefacts
    found = top_latents(tmp_path / "run", [record], Cache(own_cache))[CONCEPT.name]
    best, second = found[0], found[1]
    assert (best.latent, best.share) == (2, pytest.approx(0.75))
    assert (second.latent, second.pictures) == (0, ())
    assert best.activations == (4.0, 1.0)
    expected = np.rint((values["x"][3].permute(1, 2, 0).numpy() + 1) * 127.5)
    picture, dimmed = best.pictures[0]
    assert np.array_equal(picture, expected)
    share = dimmed.sum(axis=-1) / picture.sum(axis=-1)
    assert share[2, 6] > 0.8 and share[-1, -1] == pytest.approx(0.25, abs=0.02)


def test_the_section_shows_them_or_says_why_not(
    artefacts: tuple[RunRecord, dict[str, torch.Tensor]], own_cache: Path, tmp_path: Path
) -> None:
    record, _ = artefacts
    run, sheets = tmp_path / "run", Sheets(tmp_path / "out")

    def section_of(record: RunRecord, store: RecordStore | None) -> Section:
        return latents_section(Group([record]), Source(run, (record,), store, own_cache), sheets)

    store = RecordStore(run)
    section = section_of(record, store)
    assert isinstance(section.content, dict) and set(section.content) == {CONCEPT.name}
    assert len(list((tmp_path / "out" / "images").iterdir())) == 1
    other = record.model_copy(update={"artefacts": {"sae": "0" * 64}})
    assert "holds no alignment" in str(section_of(other, store).content)
    for index in own_cache.rglob("index.json"):
        index.write_text("{}", encoding="utf-8")
    assert "cannot be read: damaged" in str(section_of(record, store).content)
    assert "records alone" in str(section_of(record, None).content)
