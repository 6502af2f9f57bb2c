"""Controls whose worth is known: no edit, the perfect edit, two that are wrong, a ruined picture.

- `identity` scores what any method would that changes nothing.
- `oracle` renders the image again with the one factor flipped: the perfect edit, known only where
  the image's factors are.
- `shuffled` flips another factor than the one asked for: a real and local edit whose words are
  wrong, which should move the target as little as any bystander.
- `inverted` is given images that have the attribute, and removes it. What is blind to direction
  cannot tell it from the oracle; a signed number must be negative.
- `destroy` fades the picture into its own mean colour, a blur without limit, while noise rises: at
  strength 1 nothing of the subject is left. Thresholds on identity and perceptual drift must fire.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from casl_bench.core.errors import InputError
from casl_bench.core.seeding import derive_seed
from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import (
    EditTask,
    FitCost,
    MethodConfig,
    MethodInfo,
    OracleRenderer,
    UnfittedMethod,
    control_info,
    register_method,
)
from casl_bench.methods.pixel_editor import PixelEdit, PixelEditor
from casl_bench.models.random_numbers import image_noise

NOISE_SEED = 0


class IdentityEditor:
    """Returns the reconstruction."""

    cost = FitCost()

    def edit(self, inversions: Inversions, strengths: Sequence[float]) -> Tensor:
        """The reconstruction at every strength."""
        return inversions.reconstruction[None].repeat(len(strengths), 1, 1, 1, 1)

    def state(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


@register_method
class Identity(UnfittedMethod[MethodConfig]):
    """Inversion and reconstruction only."""

    info: ClassVar[MethodInfo] = control_info("identity", "no edit")

    def fit(self, task: EditTask) -> IdentityEditor:
        """Nothing to learn."""
        return IdentityEditor()


class RerenderEditor(PixelEditor):
    """Renders images again with one attribute flipped, and adds that change of pixels.

    To the reconstruction, so that the baseline is that of every method; strength 1 is exactly the
    known edit.
    """

    def __init__(self, render: OracleRenderer, attribute: str) -> None:
        self._render, self._attribute = render, attribute

    def prepare(self, inversions: Inversions) -> PixelEdit:
        """Reconstruction + strength · (flipped render - image)."""
        change = self._render(inversions.image_ids, self._attribute) - inversions.x_0
        return lambda strength: inversions.reconstruction + strength * change


class RerenderMethod(UnfittedMethod[MethodConfig]):
    """Base of controls that render an image again with one attribute flipped."""

    def attribute(self, task: EditTask) -> str:
        """What is flipped: the concept's own attribute."""
        return task.concept.attribute

    def fit(self, task: EditTask) -> RerenderEditor:
        """Nothing to learn. Raises InputError where the task grants no renderer."""
        if task.oracle is None:
            raise InputError("an image is rendered again only where its factors are known")
        return RerenderEditor(task.oracle, self.attribute(task))


@register_method
class Oracle(RerenderMethod):
    """Re-render with the factor flipped."""

    info: ClassVar[MethodInfo] = control_info(
        "oracle", "oracle (re-rendered)", needs_oracle=True, matched=True, bidirectional=False
    )


@register_method
class Inverted(RerenderMethod):
    """Re-render images that have the attribute without it."""

    info: ClassVar[MethodInfo] = control_info(
        "inverted", "oracle, the wrong way", needs_oracle=True, on_present=True, bidirectional=False
    )


def stand_in(attribute: str, others: Sequence[str]) -> str:
    """The one of the others that is edited in place of an attribute: by a hash of its name.

    So the choice depends on nothing but the data set's list, and concepts get different ones.
    Raises InputError if there is no other.
    """
    if not others:
        raise InputError("there is no other attribute to edit", where=f"attribute '{attribute}'")
    return others[derive_seed(0, "shuffled", attribute) % len(others)]


@register_method
class Shuffled(RerenderMethod):
    """Re-render with another factor flipped."""

    info: ClassVar[MethodInfo] = control_info(
        "shuffled", "another concept's oracle", needs_oracle=True, bidirectional=False
    )

    def attribute(self, task: EditTask) -> str:
        """Another one. Raises InputError where the data set has no other."""
        return stand_in(task.concept.attribute, task.other_attributes)


class DestroyConfig(MethodConfig):
    """Settings of the ruin."""

    noise: float = 1.0  # standard deviation at strength 1, pixels in [-1, 1]


class DestroyEditor(PixelEditor):
    """Fades images and adds noise that belongs to their pixels."""

    def __init__(self, noise: float) -> None:
        self._noise = noise

    def prepare(self, inversions: Inversions) -> PixelEdit:
        """clamp((1 - m) · reconstruction + m · its mean colour + strength · noise), m = min(s, 1).

        In [-1, 1].
        """
        image = inversions.reconstruction
        # In double precision: a mean over an image must not depend on how many are averaged.
        colour = image.double().mean((2, 3), keepdim=True).float()
        noise = image_noise(image.shape[1:], inversions.noise_keys, NOISE_SEED, "destroy")

        def ruined(strength: float) -> Tensor:
            faded = image + min(strength, 1.0) * (colour - image)
            return (faded + strength * self._noise * noise).clamp(-1, 1)

        return ruined


@register_method
class Destroy(UnfittedMethod[DestroyConfig]):
    """Noise and blur."""

    info: ClassVar[MethodInfo] = control_info(
        "destroy", "ruined picture", version=2, bidirectional=False
    )
    config_class = DestroyConfig

    def fit(self, task: EditTask) -> DestroyEditor:
        """Nothing to learn."""
        return DestroyEditor(self.config.noise)
