"""A user's own attribute classifier of photographs, read without running any Python in its file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import timm
import torch
import torch.nn.functional as F
import torchvision
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from torch import Tensor, nn

from casl_bench.core.errors import InputError, InvalidBenchmarkError, UsageError
from casl_bench.core.files import hash_file, hash_json, read_checked
from casl_bench.models.micro_batch import in_micro_batches
from casl_bench.models.scorers import ScorerInfo
from casl_bench.models.weights import AGAIN, CANNOT_BUILD, fitted_state, read_checkpoint
from casl_bench.photos.photo_hub import PublishedNames

Positive = Annotated[FiniteFloat, Field(gt=0)]
Channels = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
_HINT = "write timm:NAME or torchvision:NAME, such as timm:resnet18"
EPS = 1e-6
MOST_PIXELS = 1024
"""Side of the images of a classifier."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Calibration(_Frozen):
    """Makes a probability of sigmoid(scale · logit + bias); one number an attribute each."""

    scale: tuple[Positive, ...]
    bias: tuple[FiniteFloat, ...]


class ClassifierSidecar(_Frozen):
    """What `NAME.json` says of the weights in `NAME.safetensors`, `NAME.pt` or `NAME.pth`."""

    # What the outputs are of, in their order, under published or under our names
    attributes: tuple[str, ...] = Field(min_length=1)
    image_size: int = Field(ge=1, le=MOST_PIXELS)  # H = W that the network takes, pixels
    mean: Channels  # of each channel, for pixels in [0, 1]
    std: tuple[Positive, Positive, Positive]  # likewise
    # `timm:NAME` or `torchvision:NAME`; a file to be loaded must name it
    architecture: str | None = None
    output: Literal["logits", "probabilities"] = "logits"  # what the outputs are
    # Where each attribute has two outputs, the one that says it is there; outputs are then
    # [n, A, 2] or, packed alike, [n, 2·A]
    positive_class: Literal[0, 1] | None = None
    calibration: Calibration | None = None  # of the attributes' logits, before any is negated
    sha256: str | None = None  # of the weights file; checked where given
    name: str | None = None  # what records call it; default: the file's name

    @model_validator(mode="after")
    def _fits(self) -> ClassifierSidecar:
        count = len(self.attributes)
        if len(set(self.attributes)) < count:
            raise ValueError("an attribute is named twice")
        given = self.calibration
        if given and not len(given.scale) == len(given.bias) == count:
            raise ValueError("calibration needs one scale and one bias an attribute")
        return self

    @property
    def outputs(self) -> int:
        """Numbers that the network gives an image."""
        return len(self.attributes) * (1 if self.positive_class is None else 2)

    def columns(
        self, attributes: Sequence[str], published: PublishedNames, where: str
    ) -> list[tuple[int, int]]:
        """Where the logits of a data set's attributes are, each with its sign.

        `published` gives other names that they may have here. Raises UsageError naming those that
        the classifier does not know.
        """
        found, missing = [], []
        for attribute in attributes:
            other, sign = published.get(attribute, (attribute, 1))
            if attribute in self.attributes:
                found.append((self.attributes.index(attribute), 1))
            elif other in self.attributes:
                found.append((self.attributes.index(other), sign))
            else:
                missing.append(f"'{attribute}'" + (f" ({other})" if other != attribute else ""))
        if missing:
            raise UsageError(
                f"the classifier does not know {', '.join(missing)}",
                where=where,
                hint="give one that knows every attribute of the data set, under these names",
            )
        return found


def read_sidecar(weights: Path) -> ClassifierSidecar:
    """The description beside a weights file.

    Raises UsageError where there is none, or it does not say what it must.
    """
    hint = "say there what its outputs are (attributes, image_size, mean, std)"
    path, what = _description(weights), "description of a classifier"
    return read_checked(ClassifierSidecar, path, what, hint, UsageError)


def _description(weights: Path) -> Path:
    return weights.parent / f"{weights.stem}.json"


def build_network(architecture: str, outputs: int) -> nn.Module:
    """A classifier [n, 3, H, W] → [n, outputs] with random weights.

    `architecture` is `timm:NAME` or `torchvision:NAME`. Nothing is downloaded, no random state is
    touched. Raises UsageError where the library has no such network.
    """
    library, _, name = architecture.partition(":")
    # Asked first: timm would take `hf-hub:…` for an order to fetch it.
    known = {
        "timm": lambda: timm.is_model(name),
        "torchvision": lambda: name in torchvision.models.list_models(torchvision.models),
    }
    if library not in known or not known[library]():
        raise UsageError(f"no such architecture '{architecture}'", hint=_HINT)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # How some of them draw weights that are thrown away is no concern of the user's.
        warnings.simplefilter("ignore")
        network: nn.Module
        if library == "timm":
            network = timm.create_model(name, pretrained=False, num_classes=outputs)
        else:
            network = torchvision.models.get_model(name, weights=None, num_classes=outputs)
    return network


def fill(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> None:
    """Put weights under a network's own names into it.

    Raises InvalidBenchmarkError naming what is missing, unexpected, of another shape or not finite.
    """
    own = network.state_dict()
    # Files older than torch 1.0 lack these counters, which no evaluation reads.
    absent = {k for k in own if k.endswith("num_batches_tracked") and k not in weights}
    wanted = {k: v for k, v in own.items() if k not in absent}
    hint = "name the architecture that was trained, and in attributes each of its outputs"
    network.load_state_dict(fitted_state(wanted, weights, where, hint=hint), strict=False)


class PhotoClassifier:
    """A frozen classifier that answers a data set's attributes in the data set's order.

    `network` maps [n, 3, S, S], normalised, to [n, outputs]; `attributes` are the columns of
    `logits`, for which the classifier may have the `published` names. Raises UsageError where it
    does not know one of them, and InvalidBenchmarkError where the network does not give what the
    sidecar says.
    """

    def __init__(
        self,
        name: str,
        weights_hash: str,
        network: nn.Module,
        sidecar: ClassifierSidecar,
        attributes: tuple[str, ...],
        published: PublishedNames,
    ) -> None:
        self.info = ScorerInfo(name, "attributes", 1, weights_hash)
        self.attributes, self.image_size = tuple(attributes), sidecar.image_size
        self.device = torch.device("cpu")
        self._network = network.float().eval().requires_grad_(False)
        self._sidecar = sidecar
        columns = sidecar.columns(attributes, published, name)
        self._index = [column for column, _ in columns]
        signs = torch.tensor([float(sign) for _, sign in columns])
        ones = torch.ones(len(sidecar.attributes))
        given = sidecar.calibration
        scale = torch.tensor(given.scale) if given else ones
        bias = torch.tensor(given.bias) if given else 0 * ones
        self._scale, self._bias = scale[self._index] * signs, bias[self._index] * signs
        # From [-1, 1] straight to the network's range.
        self._mean = (2 * torch.tensor(sidecar.mean) - 1)[:, None, None]
        self._std = (2 * torch.tensor(sidecar.std))[:, None, None]
        self._try()

    @classmethod
    def load(
        cls, path: Path, attributes: tuple[str, ...], published: PublishedNames | None = None
    ) -> PhotoClassifier:
        """Read weights and their description, `path` with the ending `.json`.

        Raises:
            UsageError: no description, an invalid one, or an attribute that it does not know.
            InvalidBenchmarkError: weights are absent, damaged, a program (TorchScript) or do not
                fit the description.
        """
        sidecar = read_sidecar(path)
        name = sidecar.name or path.stem
        try:
            # Before anything big is read.
            sidecar.columns(attributes, published or {}, name)
            if sidecar.architecture is None:
                told = "the description does not name the architecture"
                raise UsageError(told, hint="such as timm:resnet18")
            weights = read_checkpoint(path).weights
            found = hash_file(path)
            if sidecar.sha256 not in (None, found):
                raise InvalidBenchmarkError(
                    "weights are not those their description names (truncated or changed)",
                    where=str(path),
                    hint=AGAIN,
                )
            network = build_network(sidecar.architecture, sidecar.outputs)
            fill(network, weights, str(path))
            # The description decides about the numbers as much as the weights do.
            digest = hash_json({"weights": found, "sidecar": sidecar.model_dump(mode="json")})
            return cls(name, digest, network, sidecar, attributes, published or {})
        except (UsageError, InvalidBenchmarkError) as error:
            if error.where in ("", name):
                error.where = str(_description(path))
            raise

    def to(self, device: str | torch.device) -> PhotoClassifier:
        """Move the network; results stay on the CPU."""
        self.device = torch.device(device)
        self._network.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)
        return self

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Logits [n, A] float32 on the CPU, calibrated where the description says how.

        Above 0 the attribute is there. Pixels [n, 3, H, W], nominally in [-1, 1], are clamped, then
        resized (bilinear with antialiasing) to the classifier's own size. A row depends on its
        image alone. Raises InputError: not images of three channels.
        """
        return self.logits_with_grad(pixels)

    def logits_with_grad(self, pixels: Tensor) -> Tensor:
        """`logits`, through which gradients flow to the pixels; none to those out of [-1, 1]."""
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise InputError(
                f"images of shape {tuple(pixels.shape)}, not [n, 3, H, W]", where=self.info.name
            )
        if not len(pixels):
            return torch.empty(0, len(self.attributes))
        raw = in_micro_batches(self._raw, pixels)
        return raw[:, self._index] * self._scale + self._bias

    def _raw(self, pixels: Tensor) -> Tensor:
        """[n, 3, H, W] → [n, attributes of the classifier], on the CPU."""
        x = pixels.to(self.device).float().clamp(-1, 1)
        if tuple(x.shape[-2:]) != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        x = (x - self._mean) / self._std
        out = self._network(x)
        count, sidecar = len(self._sidecar.attributes), self._sidecar
        if out.numel() != len(x) * sidecar.outputs:
            raise InvalidBenchmarkError(
                f"the network gives {tuple(out.shape)}, not {sidecar.outputs} numbers an image",
                where=self.info.name,
                hint="describe all of its outputs, in their order",
            )
        outputs: Tensor = out.float().cpu()
        if sidecar.positive_class is None:
            outputs = outputs.reshape(len(x), count)
        else:
            pair = outputs.reshape(len(x), count, 2)
            there, other = pair[..., sidecar.positive_class], pair[..., 1 - sidecar.positive_class]
            outputs = there if sidecar.output == "probabilities" else there - other
        if sidecar.output == "logits":
            return outputs
        if bool(((outputs < -EPS) | (outputs > 1 + EPS)).any()):
            raise InvalidBenchmarkError(
                "outputs are no probabilities", where=self.info.name, hint="call them logits"
            )
        logits: Tensor = torch.logit(outputs, EPS)
        return logits

    @torch.no_grad()
    def _try(self) -> None:
        """Two grey images, so that what does not fit is found before hours of work."""
        grey = torch.zeros(2, 3, self.image_size, self.image_size)
        try:
            logits = self._raw(grey)[:, self._index] * self._scale + self._bias
        except CANNOT_BUILD as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise InvalidBenchmarkError(
                f"the network cannot take images of {self.image_size} pixels: {reason}",
                where=self.info.name,
                hint="say in the description which image_size it takes",
            ) from error
        if not bool(torch.isfinite(logits).all()):
            raise InvalidBenchmarkError(
                "a grey image gets a logit that is no number",
                where=self.info.name,
                hint="fetch or train the weights again, or mend mean and std",
            )
