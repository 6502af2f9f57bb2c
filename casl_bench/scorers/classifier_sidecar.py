"""What must be known of a user's classifier beside its weights: a JSON file of the same name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from casl_bench.core.errors import InvalidBenchmarkError, UsageError

Positive = Annotated[FiniteFloat, Field(gt=0)]
Channels = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
PublishedNames = Mapping[str, tuple[str, int]]
"""Our attribute → the published one and +1, or -1 where that is its opposite (No_Beard)."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Calibration(_Frozen):
    """Makes a probability of sigmoid(scale · logit + bias); one number an attribute each."""

    scale: tuple[Positive, ...]
    bias: tuple[FiniteFloat, ...]


class ClassifierSidecar(_Frozen):
    """The sidecar of `NAME.pt` or `NAME.safetensors`, `NAME.json`.

    Attributes:
        attributes: what the outputs tell, in their order, under published or under our names.
        image_size: H = W that the network takes, pixels.
        mean: of each channel, for pixels in [0, 1].
        std: likewise.
        architecture: `timm:NAME` or `torchvision:NAME`; needed by `.safetensors` alone.
        output: what the outputs are.
        positive_class: where each attribute has two outputs, the one that says it is there; then
            outputs are [n, A, 2] or, packed alike, [n, 2·A].
        calibration: of the attributes' logits, before any is negated.
        sha256: of the weights file; checked where given.
        name: what records call it; default: the file's name.
    """

    attributes: tuple[str, ...] = Field(min_length=1)
    image_size: int = Field(ge=1)
    mean: Channels
    std: tuple[Positive, Positive, Positive]
    architecture: str | None = None
    output: Literal["logits", "probabilities"] = "logits"
    positive_class: Literal[0, 1] | None = None
    calibration: Calibration | None = None
    sha256: str | None = None
    name: str | None = None

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

        Args:
            attributes: in the data set's order.
            published: other names that they may have here.
            where: the classifier, for the message.

        Raises:
            UsageError: naming those that it does not tell.
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
                f"the classifier does not tell {', '.join(missing)}",
                where=where,
                mend="give one that tells every attribute of the data set, under these names",
            )
        return found


def read_sidecar(weights: Path) -> ClassifierSidecar:
    """The sidecar of a weights file.

    Raises:
        UsageError: there is none, or it does not say what it must.
    """
    path = weights.with_suffix(".json")
    try:
        return ClassifierSidecar.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"no description of the classifier: {error.strerror or error}",
            where=str(path),
            mend="say there what its outputs are (attributes, image_size, mean, std)",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError("not UTF-8 text", where=str(path)) from error
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        told = f"{place}: {fault['msg']}" if place else fault["msg"]
        raise UsageError(f"invalid description of a classifier: {told}", where=str(path)) from error


def check_hash(sidecar: ClassifierSidecar, found: str, where: str) -> None:
    """Refuse weights other than those described. Raises InvalidBenchmarkError."""
    if sidecar.sha256 not in (None, found):
        raise InvalidBenchmarkError(
            "weights are not those their description names (truncated or changed)",
            where=where,
            mend="fetch or train them again",
        )
