"""What looks at pictures: a classifier of the user's, CLIP with prompts, and similarities."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from casl_bench.core.errors import (
    BenchError,
    InputError,
    InvalidBenchmarkError,
    UsageError,
    first_fault,
    unknown_name,
)
from casl_bench.core.files import hash_file, hash_json, regular
from casl_bench.models.scorers import AttributeScorer, Similarity
from casl_bench.models.weights import read_checkpoint
from casl_bench.photos import photo_dataset
from casl_bench.photos.domains import load_clip
from casl_bench.photos.photo_dataset import read_concepts
from casl_bench.photos.published_weights import ALEXNET_FILE, VGGFACE2_FILE, found_at
from casl_bench.photos.scorers.classifier import (
    ClassifierSidecar,
    PhotoClassifier,
    build_network,
    fill,
    read_sidecar,
)
from casl_bench.photos.scorers.similarity import (
    FaceIdentity,
    LpipsDistance,
    PhotoSimilarity,
)
from casl_bench.photos.scorers.zero_shot import PromptPairs, ZeroShotClassifier

IMAGE_SIZE = 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of pixels in [0, 1], as networks that began with ImageNet expect them."""

LogitsOf = Callable[[Tensor], Tensor]
"""Pixels [n, 3, H, W] float32 in [-1, 1] → logits [n, A]."""


@dataclass(frozen=True)
class Description:
    """What a user says of a classifier's file on the command line; None leaves it to NAME.json."""

    attributes: tuple[str, ...] = ()
    architecture: str | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def load_classifier(path: Path, said: Description | None = None) -> AttributeScorer:
    """A classifier from weights (`.safetensors`, `.pt`, `.pth`) or an ONNX file (`.onnx`).

    Attributes, size and normalisation are in NAME.json beside it, in `said`, or in both, `said`
    first. The size is by default that of the ONNX file or 224, the normalisation ImageNet's.

    Raises:
        UsageError: if something is not said, or the package for ONNX is not installed.
        InvalidBenchmarkError: if the file is absent, damaged, a program, or fits no description.
    """
    said = said or Description()
    is_onnx = path.suffix.lower() == ".onnx"
    # Before its description: what is not there needs none.
    if not path.is_file():
        raise UsageError("no such classifier", where=str(path), hint="give weights or an ONNX file")
    network = _OnnxNetwork(path) if is_onnx else None
    sidecar = _described(path, said, None if network is None else network.image_size)
    built: nn.Module
    if network is not None:
        digest, built = hash_file(path), network
    else:
        if sidecar.architecture is None:
            raise UsageError(
                "the network of these weights is not known",
                where=str(path),
                hint="give --architecture, such as timm:resnet18, or 'architecture' in its .json",
            )
        weights = read_checkpoint(path).weights
        digest = hash_file(path)
        built = build_network(sidecar.architecture, sidecar.outputs)
        fill(built, weights, str(path))
    digest = hash_json({"weights": digest, "sidecar": sidecar.model_dump(mode="json")})
    name = sidecar.name or path.stem
    return PhotoClassifier(name, digest, built, sidecar, sidecar.attributes, {})


def _described(path: Path, said: Description, size: int | None) -> ClassifierSidecar:
    own = {
        "attributes": said.attributes or None,
        "architecture": said.architecture,
        "image_size": said.image_size,
        "mean": said.mean,
        "std": said.std,
    }
    given = {name: value for name, value in own.items() if value is not None}
    if path.with_name(f"{path.stem}.json").is_file():
        known = read_sidecar(path).model_dump()
    elif said.attributes:
        known = {"image_size": size or IMAGE_SIZE, "mean": MEAN, "std": STD}
    else:
        raise UsageError(
            "the names of the classifier's outputs are not known",
            where=str(path),
            hint=f"give --attributes in their order, or write {path.stem}.json beside it",
        )
    try:
        return ClassifierSidecar.model_validate({**known, **given})
    except ValidationError as error:
        raise UsageError(
            f"not a description of a classifier: {first_fault(error)}", where=str(path)
        ) from error


class _OnnxNetwork(nn.Module):
    """A session of onnxruntime as a network: [n, 3, H, W], normalised → [n, outputs]."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            runtime: Any = import_module("onnxruntime")
        except ImportError as error:
            raise UsageError(
                "an ONNX file needs the package onnxruntime",
                where=str(path),
                hint="pip install 'casl-bench[onnx]'",
            ) from error
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = runtime.InferenceSession(
                str(regular(path)), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own kinds, which share no base but this
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InvalidBenchmarkError(f"not an ONNX model: {line}", where=str(path)) from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise InvalidBenchmarkError(
                "the ONNX model takes more than one image, or none", where=str(path),
                hint="export it with one input of shape [n, 3, H, W]",
            )  # fmt: skip
        self._input = inputs[0].name
        batch, _, height, _ = inputs[0].shape
        self._batch = batch if isinstance(batch, int) else None
        self.image_size = height if isinstance(height, int) else None

    def forward(self, pixels: Tensor) -> Tensor:
        """One after another where the model is exported for a fixed number of images."""
        rows = pixels.split(self._batch) if self._batch else (pixels,)
        try:
            found = [self._session.run(None, {self._input: part.numpy()})[0] for part in rows]
        except Exception as error:
            raise RuntimeError(str(error)) from error
        return torch.cat([torch.from_numpy(part).float() for part in found])


# CLIP, asked with a pair of texts for each attribute.


def read_prompts(where: str) -> PromptPairs:
    """Attribute → (text without it, text with it), from a TOML file or a data set's own.

    `where` is a file of `[[concept]]` tables (name, source, target, attribute), or the name of a
    data set whose prompts come with the package, such as `celeba_hq`.

    Raises:
        UsageError: if there is no such file or data set, or it says something else.
    """
    path = Path(where)
    if path.suffix != ".toml":
        path = _SHIPPED / f"{where}.toml"
        if not path.is_file():
            raise unknown_name("set of prompts", where, [p.stem for p in _SHIPPED.glob("*.toml")])
    return {
        c.attribute: (c.source_prompt, c.target_prompt)
        for c in read_concepts(path, _attributes(path))
    }


_SHIPPED = Path(photo_dataset.__file__).with_name("concepts")


def _attributes(path: Path) -> tuple[str, ...]:
    """Whatever the file names: here a concept need not be called as its attribute."""
    try:
        rows = tomllib.loads(regular(path).read_text("utf-8"))["concept"]
        return tuple(str(row["attribute"]) for row in rows)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ()  # reading it says why


def zero_shot_classifier(
    spec: str, prompts: PromptPairs, weights_root: Path, allow_download: bool = False
) -> AttributeScorer:
    """CLIP as a classifier: above 0 an image is nearer to the text with the attribute.

    Args:
        spec: ARCHITECTURE:TAG or ARCHITECTURE:FILE, as of `--zero-shot-clip`.
        prompts: attribute → (text without it, text with it).
        weights_root: folder where weights are looked for.
        allow_download: whether the Hub may be asked for them.

    Raises:
        UsageError: if there is no such CLIP, or its weights are not here.
        InvalidBenchmarkError: if the weights are damaged.
    """
    clip = load_clip(spec, weights_root, allow_download)
    plain = torch.ones(len(prompts))
    return ZeroShotClassifier(clip, clip.name, prompts, plain, 0 * plain)


class FunctionClassifier:
    """Any function of pixels as a classifier; `attributes` name its outputs.

    A network is given pixels where its weights are, and as precise.
    """

    def __init__(self, function: LogitsOf, attributes: Sequence[str]) -> None:
        self.attributes, self._function = tuple(attributes), function
        if not self.attributes:
            raise InputError("the outputs of a classifier need names", hint="give attributes=[…]")
        self._like = torch.zeros(0)
        if isinstance(function, nn.Module):
            function.eval()
            self._like = next(function.parameters(), self._like)

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """[n, A] float32 on the CPU.

        Raises:
            InputError: if it is of another shape or not finite.
        """
        given = pixels.to(self._like.device, self._like.dtype)
        found = torch.as_tensor(self._function(given)).detach().float().cpu()
        if found.ndim == 1 and len(self.attributes) == 1:
            found = found[:, None]
        if found.shape != (len(pixels), len(self.attributes)):
            raise InputError(
                f"the classifier gives {tuple(found.shape)} for {len(pixels)} images, not "
                f"{(len(pixels), len(self.attributes))}",
                hint="name each of its outputs in attributes",
            )
        if not bool(torch.isfinite(found).all()):
            raise InputError("the classifier gives a logit that is no number")
        return found


# How alike two pictures are, where weights for that are here.


def find_similarity(weights_root: Path) -> tuple[Similarity | None, tuple[str, ...]]:
    """LPIPS and face identity as far as their weights are here, and a sentence about the rest."""
    notes = []
    found: dict[str, Any] = {}
    loads: Mapping[str, tuple[str, Callable[[Path], Any]]] = {
        "perceptual distance (LPIPS)": (f"lpips/{ALEXNET_FILE}", LpipsDistance.load),
        "identity (VGGFace2)": (f"faces/{VGGFACE2_FILE}", FaceIdentity.load),
    }
    for what, (place, load) in loads.items():
        path = found_at(weights_root, place)
        if path is None:
            notes.append(f"no {what}: {weights_root / place} is not there, see casl-bench weights")
            continue
        try:
            found[what] = load(path)
        except BenchError as error:
            notes.append(f"no {what}: {error}")
    lpips, identity = (found.get(what) for what in loads)
    if lpips is None:
        return None, tuple(notes)
    return PhotoSimilarity(lpips, identity), tuple(notes)
