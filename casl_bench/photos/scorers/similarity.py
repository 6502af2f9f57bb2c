"""How alike two photographs are: LPIPS, and the person's identity where the data show persons."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from casl_bench.core.errors import InputError, InvalidBenchmarkError
from casl_bench.core.files import hash_json
from casl_bench.models.micro_batch import MICRO_BATCH, run_in_micro_batches
from casl_bench.models.model_files import hash_tensors
from casl_bench.models.scorers import ScorerInfo
from casl_bench.models.weights import Source, fitted_state, read_checkpoint
from casl_bench.photos import extra_package
from casl_bench.photos.scorers.classifier import fill

FACE_SIZE = 160
_FACES = 8  # in a pass
# Side of the crop where no face is found, as a share of the image's shorter side: about the size
# of the faces that are found in CelebA-HQ's framing.
CENTRE_SHARE = 0.7
# AlexNet's five stages need this many pixels to see more than padding.
MIN_SIZE = 64

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom are outside."""


class FaceIdentity:
    """A frozen face recogniser with a frozen face finder.

    The face is looked for on the original alone, and the edited image is cut at the same place:
    were it looked for twice, an edit that opens a mouth would move its own crop, and identity would
    measure the finder. So an edit that moves the face itself is charged for that.

    Args:
        network: [n, 3, 160, 160] → unit embeddings [n, 512].
        finder: as `facenet_pytorch.MTCNN`, on the CPU, so that crops never depend on a device.
    """

    def __init__(self, network: nn.Module, finder: Any) -> None:
        self._network = network.eval().requires_grad_(False)
        self._finder = finder.eval().requires_grad_(False)
        self.device = torch.device("cpu")
        of_finder = {f"finder.{k}": v for k, v in finder.state_dict().items()}
        digest = hash_tensors({**network.state_dict(), **of_finder})
        self.info = ScorerInfo("vggface2", "similarity", 1, digest)
        self._boxes: dict[bytes, Box | None] = {}

    @classmethod
    def load(cls, weights: Path) -> FaceIdentity:
        """The recogniser from facenet-pytorch's state dict, without its 8,631 class outputs.

        Raises UsageError where the `facenet-pytorch` package is absent, and InvalidBenchmarkError
        where the file is absent, damaged, unsafe or of another network.
        """
        tensors = _trained_on(weights, "logits.", 8631, "VGGFace2")
        network, finder = _untrained()
        fill(network, tensors, str(weights))
        return cls(network, finder)

    def to(self, device: str | torch.device) -> FaceIdentity:
        """Move the recogniser; the finder and the results stay on the CPU."""
        self.device = torch.device(device)
        self._network.to(self.device)
        return self

    def faces_missed(self, images: Tensor) -> int:
        """Of images [n, 3, H, W], nominally in [-1, 1], those in which no face is found."""
        images = images.detach().cpu().float().clamp(-1, 1)
        return sum(self._box(image) is None for image in images)

    @torch.no_grad()
    def identity_similarity(self, *, original: Tensor, edited: Tensor) -> Tensor:
        """Cosine of the embeddings of two images, [n] in [-1, 1] on the CPU.

        Of [n, 3, H, W] twice, nominally in [-1, 1], clamped. The original decides where the face
        is; where none is found the middle of the image is taken. A row depends on its two images
        alone. Raises InputError where shapes do not fit.
        """
        _check_pair(original, edited, self.info.name)
        before = original.detach().cpu().float().clamp(-1, 1)
        after = edited.detach().cpu().float().clamp(-1, 1)
        middle = centre_box(*original.shape[2:])
        boxes = [self._box(image) or middle for image in before]
        faces = [
            torch.stack([cut(image, box) for image, box in zip(images, boxes, strict=True)])
            for images in (before, after)
        ]
        return run_in_micro_batches(self._cosine, _FACES, *faces)[0]

    def _cosine(self, a: Tensor, b: Tensor) -> tuple[Tensor]:
        left, right = (F.normalize(self._network(x.to(self.device)), dim=1) for x in (a, b))
        return ((left * right).sum(1).clamp(-1, 1).float().cpu(),)

    def _box(self, image: Tensor) -> Box | None:
        """Where the face of an image [3, H, W] is; one edited many times is searched once."""
        bytes_hwc = ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        height, width = bytes_hwc.shape[:2]
        content = hashlib.sha256(f"{height},{width}".encode() + bytes_hwc.tobytes())
        key = content.digest()
        if key not in self._boxes:
            self._boxes[key] = self._find(bytes_hwc)
        return self._boxes[key]

    def _find(self, image: np.ndarray[Any, Any]) -> Box | None:
        with warnings.catch_warnings():
            # Written for an older NumPy and torch.
            warnings.simplefilter("ignore")
            try:
                found, _ = self._finder.detect(image)
            except (RuntimeError, IndexError):
                # How facenet-pytorch 2.5 says that all of its candidates lie outside the image.
                found = None
        if found is None or not len(found):
            return None
        # The largest face comes first.
        left, top, right, bottom = (int(v) for v in found[0][:4])
        height, width = image.shape[:2]
        left, top, right, bottom = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        return (left, top, right, bottom) if right > left and bottom > top else None


def _check_pair(a: Tensor, b: Tensor, where: str) -> None:
    if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or not len(a):
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise InputError(f"images of shapes {shapes}, not [n, 3, H, W] twice", where=where)


def _trained_on(path: Path, head: str, classes: int, dataset: str) -> dict[str, Tensor]:
    """A file's tensors without its class outputs, which show on which data it was trained."""
    weights = read_checkpoint(path).weights
    outputs = [t.shape[0] for k, t in weights.items() if k.startswith(head) and t.ndim == 2]
    if outputs and outputs[-1] != classes:
        raise InvalidBenchmarkError(
            f"not the {dataset} weights: {outputs[-1]:,} classes, not {classes:,}",
            where=str(path),
            hint="see `casl-bench weights`",
        )
    return {k: v for k, v in weights.items() if not k.startswith(head)}


def centre_box(height: int, width: int) -> Box:
    """The square in the middle of an image."""
    side = max(1, round(CENTRE_SHARE * min(height, width)))
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def cut(image: Tensor, box: Box) -> Tensor:
    """A face as the network takes it: [3, 160, 160], (v - 127.5) / 128 of values v in [0, 255]."""
    left, top, right, bottom = box
    face = image[None, :, top:bottom, left:right]
    size = (FACE_SIZE, FACE_SIZE)
    face = F.interpolate(face, size, mode="bilinear", antialias=True, align_corners=False)
    return face[0] * (127.5 / 128)


def _untrained() -> tuple[nn.Module, Any]:
    """A random recogniser, and the finder with the weights of its package."""
    facenet = extra_package("facenet_pytorch", "face identity")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recogniser = facenet.InceptionResnetV1(pretrained=None, classify=False)
        return recogniser, facenet.MTCNN(device="cpu")


class LpipsDistance:
    """Frozen LPIPS 0.1, AlexNet; `network` as `lpips.LPIPS`: two [n, 3, H, W] → [n, 1, 1, 1]."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval().requires_grad_(False)
        self.device = torch.device("cpu")
        self.info = ScorerInfo("lpips_alex", "similarity", 1, hash_tensors(network.state_dict()))

    @classmethod
    def load(cls, alexnet: Path) -> LpipsDistance:
        """LPIPS on torchvision's state dict of AlexNet, without its classifier layers.

        Raises UsageError where the `lpips` package is absent, and InvalidBenchmarkError where the
        file is absent, damaged, unsafe or of another network.
        """
        features = _trained_on(alexnet, "classifier.", 1000, "ImageNet")
        network = _untrained_lpips()
        trunk = network.net
        state = fitted_state(trunk.state_dict(), features, str(alexnet), _as_torchvision_names_it)
        trunk.load_state_dict(state)
        return cls(network)

    def to(self, device: str | torch.device) -> LpipsDistance:
        """Move the network; results stay on the CPU."""
        self.device = torch.device(device)
        self._network.to(self.device)
        return self

    @torch.no_grad()
    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """How differently two images look: [n] >= 0 on the CPU, 0 for equal images.

        Of [n, 3, H, W] twice, nominally in [-1, 1], clamped; compared at their own size, save that
        images whose shorter side is below 64 pixels are enlarged to it (bilinear). A row depends on
        its two images alone. Raises InputError where shapes do not fit.
        """
        _check_pair(a, b, self.info.name)
        return run_in_micro_batches(self._distance, MICRO_BATCH, a, b)[0]

    def _distance(self, a: Tensor, b: Tensor) -> tuple[Tensor]:
        distance: Tensor = self._network(self._seen(a), self._seen(b))
        return (distance.flatten().float().cpu(),)

    def _seen(self, pixels: Tensor) -> Tensor:
        x = pixels.to(self.device).float().clamp(-1, 1)
        short = min(x.shape[-2:])
        if short >= MIN_SIZE:
            return x
        size = [round(side * MIN_SIZE / short) for side in x.shape[-2:]]
        return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _untrained_lpips() -> Any:
    """LPIPS with its own heads on a random AlexNet."""
    lpips = extra_package("lpips", "LPIPS")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # It calls torchvision in a way that was deprecated after it was written.
        warnings.simplefilter("ignore")
        return lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)


def _as_torchvision_names_it(name: str) -> Source:
    """`slice2.3.weight` of the package is torchvision's `features.3.weight`."""
    return Source("features." + name.split(".", 1)[1])


class PhotoSimilarity:
    """What `RenderEmbedder` is for drawings: LPIPS and, where there are persons, face identity."""

    def __init__(self, lpips: LpipsDistance, identity: FaceIdentity | None = None) -> None:
        self._lpips, self._identity = lpips, identity
        parts = [lpips.info] + ([identity.info] if identity else [])
        name = "+".join(part.name for part in parts)
        digest = hash_json([part.weights_hash for part in parts]) if identity else (
            lpips.info.weights_hash
        )  # fmt: skip
        self.info = ScorerInfo(name, "similarity", 1, digest)

    def faces_missed(self, images: Tensor) -> int | None:
        """Images in which no face is found; None where none is looked for."""
        return self._identity.faces_missed(images) if self._identity else None

    def to(self, device: str | torch.device) -> PhotoSimilarity:
        """Move the networks; results stay on the CPU."""
        self._lpips.to(device)
        if self._identity:
            self._identity.to(device)
        return self

    def perceptual_distance(self, edited: Tensor, original: Tensor) -> Tensor:
        """LPIPS, [n] >= 0: `LpipsDistance.distance`."""
        return self._lpips.distance(edited, original)

    def identity_similarity(self, edited: Tensor, original: Tensor) -> Tensor | None:
        """Cosine [n], the face found on `original`: `FaceIdentity.identity_similarity`."""
        if self._identity is None:
            return None
        return self._identity.identity_similarity(original=original, edited=edited)
