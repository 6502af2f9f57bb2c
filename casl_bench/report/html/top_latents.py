"""What the best aligned latents of a concept respond to: the test images that activate each most.

The only part of a report that reads artefacts from the cache (SAE, alignment, h of test images) and
so the only one that needs torch, once there is anything to read. Nothing is computed that a run
would have to be there for: no network sees an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from casl_bench.cache.store import ABOUT, Cache, Entry, Sidecar
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import hash_file, hash_json, read_json
from casl_bench.results.edited_images import Pixels, to_pixels
from casl_bench.results.record import RunRecord

if TYPE_CHECKING:
    from torch import Tensor

    from casl_bench.diffusion.trajectories import TrajectoryStore
    from casl_bench.runs.fits import StoredFit
    from casl_bench.sae.sae import HSpaceSae

METHODS = ("casl", "casl_steer")
"""Methods that learn an alignment, which they share."""
LATENTS, IMAGES = 4, 6
"""How many of a concept's latents, and images of each, are shown."""
SEARCHED = 200
"""Test images that are looked through, at most."""
_DIMMED = 0.25
"""How bright a picture stays where a latent is silent."""


@dataclass(frozen=True)
class LatentImages:
    """The images that activate a latent most.

    Attributes:
        latent: its number in the SAE.
        share: its part of the sum of all latents' scores in the alignment.
        pictures: best first, each (picture, dimmed where the latent is silent).
        activations: of these pictures, in the SAE's units.
    """

    latent: int
    share: float
    pictures: tuple[tuple[Pixels, Pixels], ...]
    activations: tuple[float, ...]


def top_latents(
    run: Path, records: Sequence[RunRecord], cache: Cache
) -> dict[str, list[LatentImages]]:
    """Concept → its best aligned latents; empty where the artefacts are not there.

    An image's activation is the latent's mean over the timesteps that the method edits, at the
    position where that is largest.

    Args:
        run: the run folder.
        records: of one data set.
        cache: with the artefacts of the run.

    Raises:
        InvalidBenchmarkError: if an artefact is there and damaged.
    """
    aligned: dict[str, RunRecord] = {}
    for name in reversed(METHODS):
        aligned |= {r.concept or "": r for r in records if _is_aligned(r, name)}
    first = next(iter(aligned.values()), None)
    found: dict[str, list[LatentImages]] = {}
    shared = None if first is None else _shared_artefacts(run, first, cache)
    if shared is None:
        return found
    codes: dict[int, Tensor] = {}
    for concept, record in sorted(aligned.items()):
        fit = _stored_fit(record, shared, cache)
        t_edit = record.method_config.get("t_edit")
        if fit is None or not isinstance(t_edit, int):
            continue
        if t_edit not in codes:
            codes[t_edit] = _mean_codes(shared, t_edit)
        found[concept] = _latents_of(fit, codes[t_edit], shared)
    return found


@dataclass(frozen=True)
class _Shared:
    """Artefacts of a data set: the SAE, and the test images as it sees them.

    Their entries of the cache are held with them.

    Attributes:
        sae: the autoencoder.
        train_key: hash under which the inversions of the training images lie.
        test: trajectories of the test images.
        entries: held.
    """

    sae: HSpaceSae
    train_key: str
    test: TrajectoryStore
    entries: tuple[Entry, ...]


def _is_aligned(record: RunRecord, method: str) -> bool:
    return (
        record.kind == "edit"
        and record.method == method
        and record.status == "done"
        and record.fit_seed == 0
        and "sae" in record.artefacts
    )


def _shared_artefacts(run: Path, record: RunRecord, cache: Cache) -> _Shared | None:
    """The SAE that the record names and its images; None where one of them is not there."""
    for sidecar in cache.entries("sae"):
        entry = cache.find(sidecar.key)
        if entry is None or _content_hash(entry.folder) != record.artefacts["sae"]:
            continue
        inversions = {s.key.hash: s for s in cache.entries("inversions")}
        train = inversions.get(str(sidecar.inputs["activations"]))
        tests = [s for s in inversions.values() if train and _is_test_of(s, train, run)]
        # Of several, none can be told to be the record's.
        if train is None or len(tests) != 1:
            continue
        from casl_bench.diffusion.trajectories import TrajectoryStore
        from casl_bench.sae.sae import HSpaceSae

        held = cache.find(tests[0].key)
        if held is not None:
            test = TrajectoryStore.open(held.folder, held.check_large)
            return _Shared(HSpaceSae.load(entry.folder), train.key.hash, test, (entry, held))
    return None


def _content_hash(folder: Path) -> str | None:
    try:
        found: str = read_json(folder / "cfg.json")["content_hash"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def _is_test_of(sidecar: Sidecar, train: Sidecar, run: Path) -> bool:
    """Whether inversions are of the test images beside these training images in a run."""
    try:
        suite = read_json(run / "manifest.json")["key"]["suite"]
        count = suite["test_pool_images"]
    except (OSError, ValueError, KeyError, TypeError):
        count = None
    inputs = sidecar.inputs
    alike = set(inputs) - {ABOUT, "split", "count"}
    return (
        inputs.get("split") == "test"
        and count in (None, inputs.get("count"))
        and all(inputs[name] == train.inputs.get(name) for name in alike)
    )


def _stored_fit(record: RunRecord, shared: _Shared, cache: Cache) -> StoredFit | None:
    """The record's alignment from the cache; None where it is not there."""
    key = alignment_fit_key(record, shared.train_key)
    if key is None:
        return None
    from casl_bench.runs.fits import FitStore

    return FitStore(cache).find(key)


def alignment_fit_key(record: RunRecord, train: str) -> str | None:
    """Under which key a run keeps the alignment of a record; None where that cannot be told.

    Fits lie under a hash of all that determines them (`runs.fitting.Fitting.fit`), made here again
    from the record and the shipped guide. Where its guide lies a record of the real world does not
    say.

    Args:
        record: of a method that learns an alignment.
        train: hash under which the inversions of the training images lie.
    """
    from casl_bench.domains.rendered import ASSETS, DOMAINS
    from casl_bench.methods.casl import CaslConfig, alignment_key
    from casl_bench.models.model_files import CARD, WEIGHTS

    if record.world != "synth" or record.dataset not in DOMAINS or "pretrained" in record.artefacts:
        return None
    drawing, guide = DOMAINS[record.dataset].drawing, ASSETS / record.dataset / "guide_clip"
    concepts = {c.name: c for c in drawing.concepts}
    concept = concepts.get(record.concept or "")
    if concept is None:
        return None
    inputs: dict[str, Any] = {
        "stage": 3,
        "train": train,
        "validation": None,
        "judge": None,
        "attributes": list(drawing.attributes),
        "concept": asdict(concept),
        "guide": [read_json(guide / CARD)["name"], hash_file(guide / WEIGHTS)],
        "sae": record.artefacts["sae"],
        "seed": record.seed,
        "device": record.provenance.device.split(":")[0],
    }
    known = {n: v for n, v in record.method_config.items() if n in CaslConfig.model_fields}
    return hash_json([alignment_key(CaslConfig.model_validate(known)), hash_json(inputs)])


def _mean_codes(shared: _Shared, t_edit: int) -> Tensor:
    """[n, d_sae, h, w] code of the test images, mean over the timesteps from `t_edit` on."""
    import torch

    few = slice(0, min(SEARCHED, len(shared.test)))
    window = [(s, t) for s, t in enumerate(shared.test.timesteps) if t >= t_edit]
    total = torch.zeros(())
    for step, t in window:
        h = shared.test.h(step, few)
        total = total + shared.sae.sae.encode(shared.sae.normalise(h, t))
    if not window:
        raise InvalidBenchmarkError(f"no timestep of the inversion is at {t_edit} or later")
    n, _, height, width = h.shape
    rows = (total / len(window)).unflatten(0, (n, height * width))
    return rows.transpose(1, 2).unflatten(2, (height, width))


def _latents_of(fit: StoredFit, codes: Tensor, shared: _Shared) -> list[LatentImages]:
    """The best aligned latents, each with its images."""
    from casl_bench.methods.casl import ConceptAlignment

    scores = ConceptAlignment.from_tensors(shared.sae, fit.state).latent_scores()
    whole = float(scores.sum())
    found = []
    for latent in scores.argsort(descending=True, stable=True)[:LATENTS].tolist():
        maps = codes[:, latent]
        peaks = maps.flatten(1).amax(1)
        best = peaks.argsort(descending=True, stable=True)[:IMAGES]
        best = best[peaks[best] > 0]
        pixels = to_pixels(shared.test.x_t(0, best).numpy())
        pictures = tuple(
            (picture, _dimmed(picture, (maps[i] / peaks[i]).numpy()))
            for picture, i in zip(pixels, best.tolist(), strict=True)
        )
        share = float(scores[latent]) / whole if whole else 0.0
        found.append(LatentImages(latent, share, pictures, tuple(peaks[best].tolist())))
    return found


def _dimmed(picture: Pixels, activation: NDArray[Any]) -> Pixels:
    """The picture [H, W, 3], dark where the activation [h, w] in [0, 1] is 0."""
    height, width, _ = picture.shape
    smooth = Image.fromarray(activation.astype(np.float32)).resize(
        (width, height), Image.Resampling.BILINEAR
    )
    light = _DIMMED + (1 - _DIMMED) * np.asarray(smooth)
    return np.rint(picture * light[..., None]).astype(np.uint8)
