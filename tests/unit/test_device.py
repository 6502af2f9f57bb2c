"""Everything that computes does so on the device: walked on a GPU that is not there.

From inversion to scores, with every method. A tensor that was left on the CPU, or taken there, ends
the walk, as three faults that are planted here show.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from casl_bench.conformance.toy_domain import TIMESTEPS, ToyTasks, toy_domain
from casl_bench.diffusion.ddim import ddim_generation
from casl_bench.diffusion.inversion import invert
from casl_bench.diffusion.trajectories import TrajectoryStore
from casl_bench.methods.casl import CaslEditor, ConceptAlignment
from casl_bench.methods.h_space_editor import HSpaceEditor
from casl_bench.methods.method import METHODS, EditingMethod
from casl_bench.methods.step_directions import StepDirections
from casl_bench.models.clip import ClipScorer
from casl_bench.photos.scorers.classifier import ClassifierSidecar, PhotoClassifier
from casl_bench.photos.scorers.similarity import FaceIdentity, LpipsDistance, _untrained_lpips
from casl_bench.runs.names import load_registries
from casl_bench.sae.dictionary import SaeConfig, SaeTraining
from casl_bench.sae.quality import downstream_error, sae_quality
from casl_bench.sae.sae import HSpaceSae
from casl_bench.sae.training import FitData, activation_statistics, fit_dictionary
from tests.support.fake_cuda import FakeCuda, fake_cuda

load_registries()
OURS = [name for name in METHODS if "/" not in name]
STRENGTHS = (0.0, 0.5, 1.0)
ON_CPU = {
    "timesteps", "window", "t_start", "scale", "seed", "matches", "latents", "picture", "shift"
}  # fmt: skip
"""What an editor keeps that is no tensor to compute with."""


def method_named(name: str) -> EditingMethod:
    factory = METHODS.factory(name)
    toy_config = getattr(factory, "toy_config", None)
    return factory(toy_config()) if toy_config else factory()


def on_the_device() -> ToyTasks:
    """Tasks whose networks are on the device; images and stored trajectories are not."""
    tasks = ToyTasks()
    tasks.domain.backbone.to("cuda")
    tasks.domain.guide_clip.to("cuda")
    tasks.sae.to("cuda")
    return tasks


def walk_method(name: str, tasks: ToyTasks, mode: FakeCuda, folder: Path) -> None:
    """Fit, edit, and the same from the state that is stored."""
    method = method_named(name)
    concept = tasks.domain.dataset.card.concepts[0]
    tasks.domain.guide_clip.encode_text([concept.source_prompt, concept.target_prompt])
    mode.to_cpu = 0
    editor = method.fit(tasks.task(method.info, folder))
    if name in ("casl", "casl_steer", "asyrp"):
        assert mode.to_cpu == 0, "a fit by text takes nothing back to the CPU"
    restored = {
        key: torch.zeros(t.shape, dtype=t.dtype) if isinstance(t, FakeTensor) else t
        for key, t in editor.state().items()
    }
    for key, tensor in editor.state().items():
        if key.rpartition(".")[2] not in ON_CPU and tensor.numel() > 1:
            assert tensor.device.type == "cuda", f"{name} keeps {key} on {tensor.device}"
    for each in (editor, method.restore(tasks.task(method.info, folder), restored)):
        mode.to_cpu = 0
        edits = each.edit(tasks.test_images(), STRENGTHS)
        assert edits.device.type == "cpu" and len(edits) == len(STRENGTHS)
        if isinstance(each, HSpaceEditor):
            assert mode.to_cpu == 1, "an edit comes back once, when it is done"


@pytest.mark.parametrize("name", OURS)
def test_every_method_fits_and_edits_on_the_device(name: str, tmp_path: Path) -> None:
    with fake_cuda() as mode:
        walk_method(name, on_the_device(), mode, tmp_path)


def test_inversion_and_the_dictionary_are_made_on_the_device() -> None:
    domain = toy_domain()
    images = domain.dataset.load("train", 8)
    backbone = domain.backbone
    store = TrajectoryStore.create(
        None, images.image_ids, TIMESTEPS, images.pixels.shape[1:], backbone.h_shape
    )
    training = SaeTraining(steps=2, batch=64, dead_after=1, aux_k=2)
    with fake_cuda() as mode:
        backbone.to("cuda")
        found = invert(
            backbone, images.image_ids, images.pixels, TIMESTEPS, collect=store.record,
            extrapolate=True,
        )  # fmt: skip
        assert found.x_T.device.type == found.reconstruction.device.type == "cpu"
        mode.to_cpu = 0
        generator = torch.Generator().manual_seed(0)
        config = SaeConfig(d_in=backbone.h_shape[0], d_sae=64, k=4)
        data = FitData(store, activation_statistics(store), generator, training, device="cuda")
        sae = fit_dictionary("top_k", config, data)
        hashed = len(sae._tensors())
        assert mode.to_cpu == hashed, "training takes nothing back to the CPU"
        for name, tensor in sae._tensors().items():
            assert tensor.device.type == "cuda", name
        ddim_generation(backbone, found.x_T, TIMESTEPS, sae.reconstruct)
        downstream_error(backbone, sae.reconstruct, store, [0, 1])
        with pytest.raises(ValueError, match="do not vary"):  # since there are no numbers
            sae_quality(sae, store, store)


def finder() -> Any:
    return SimpleNamespace(
        eval=lambda: finder(), requires_grad_=lambda on: finder(), state_dict=dict,
        detect=lambda image: (None, None),
    )  # fmt: skip


class Embedding(nn.Module):
    """A face recogniser of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 160)

    def forward(self, faces: Tensor) -> Tensor:
        return self.layer(faces).flatten(1)


def test_photographs_are_scored_on_the_device() -> None:
    images = torch.rand(3, 3, 64, 64) * 2 - 1
    network = nn.Sequential(nn.Conv2d(3, 2, 16), nn.Flatten())
    described = ClassifierSidecar(
        attributes=("a", "b"), image_size=16, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    classifier = PhotoClassifier("judge", "0", network, described, ("a", "b"), {})
    faces = FaceIdentity(Embedding(), finder())
    clip = ClipScorer(toy_domain().guide_clip)
    pytest.importorskip("lpips", reason="the extra `real` is not installed")
    perceptual = LpipsDistance(_untrained_lpips())
    with fake_cuda():
        classifier.to("cuda")
        faces.to("cuda")
        perceptual.to("cuda")
        clip.clip.to("cuda")
        found = {
            "logits": classifier.logits(images),
            "gradients": classifier.logits_with_grad(images.clone().requires_grad_(True)),
            "identity": faces.identity_similarity(original=images, edited=images),
            "distance": perceptual.distance(images, images),
            "text": clip.embed(images),
        }
    assert {name: (len(t), t.device.type) for name, t in found.items()} == dict.fromkeys(
        found, (3, "cpu")
    )


# The walk can fail.


def taken_to_the_cpu(patch: pytest.MonkeyPatch) -> None:
    forward = ConceptAlignment.forward
    patch.setattr(
        ConceptAlignment, "forward", lambda self, h, t, **more: forward(self, h.cpu(), t, **more)
    )


def left_on_the_cpu(patch: pytest.MonkeyPatch) -> None:
    def only_weights(self: HSpaceSae, device: str) -> HSpaceSae:
        self.sae.to(device)
        return self

    patch.setattr(HSpaceSae, "to", only_weights)


def never_moved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StepDirections, "to", lambda self, device: self)


def there_and_back(patch: pytest.MonkeyPatch) -> None:
    """The U-Net takes a delta_h from anywhere: nothing is mixed, everything waits."""
    unit = CaslEditor.unit_delta_h
    patch.setattr(CaslEditor, "unit_delta_h", lambda *given: unit(*given).cpu())


@pytest.mark.parametrize(
    ("plant", "name", "told"),
    [
        (taken_to_the_cpu, "casl", "at least two devices"),
        (left_on_the_cpu, "casl_steer", "at least two devices"),
        (never_moved, "h_linear", "h_linear keeps directions on cpu"),
        (there_and_back, "casl", "an edit comes back once"),
    ],
)
def test_a_planted_fault_ends_the_walk(
    plant: Callable[[pytest.MonkeyPatch], None],
    name: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    with pytest.raises((RuntimeError, AssertionError), match=told), fake_cuda() as mode:
        walk_method(name, on_the_device(), mode, tmp_path)
