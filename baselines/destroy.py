"""Control: the picture is ruined. The thresholds on identity and perceptual drift must fire.

The reconstruction fades into its own mean colour, a blur without limit, while noise rises: at
strength 1 nothing of the subject is left, beyond it there is more noise.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from casl_bench.diffusion.inversion import Inversions
from casl_bench.methods.method import (
    EditTask,
    MethodConfig,
    MethodInfo,
    UnfittedMethod,
    register_method,
)
from casl_bench.methods.pixel_editor import PixelEdit, PixelEditor
from casl_bench.models.random_numbers import image_noise

NOISE_SEED = 0


class DestroyConfig(MethodConfig):
    """Settings of the ruin.

    Attributes:
        noise: standard deviation at strength 1, pixels in [-1, 1].
    """

    noise: float = 1.0


class DestroyEditor(PixelEditor):
    """Fades images and adds noise that belongs to their ids."""

    def __init__(self, noise: float) -> None:
        """Keep the standard deviation of the noise at strength 1."""
        self._noise = noise

    def prepare(self, inversions: Inversions) -> PixelEdit:
        """clamp((1 - m) · reconstruction + m · its mean colour + strength · noise), m = min(s, 1).

        In [-1, 1].
        """
        image = inversions.reconstruction
        # In double precision: a mean over an image must not depend on how many are averaged.
        colour = image.double().mean((2, 3), keepdim=True).float()
        noise = image_noise(image.shape[1:], inversions.image_ids, NOISE_SEED, "destroy")

        def ruined(strength: float) -> Tensor:
            faded = image + min(strength, 1.0) * (colour - image)
            return (faded + strength * self._noise * noise).clamp(-1, 1)

        return ruined


@register_method
class Destroy(UnfittedMethod[DestroyConfig]):
    """Noise and blur."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="destroy",
        title="ruined picture",
        source="control",
        version=1,
        control=True,
        bidirectional=False,
    )
    config_class = DestroyConfig

    def fit(self, task: EditTask) -> DestroyEditor:
        """Nothing to learn."""
        return DestroyEditor(self.config.noise)
