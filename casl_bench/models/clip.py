"""Text and images in one space: a frozen open_clip model, as guide or as scorer."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional

from casl_bench.core.errors import InputError
from casl_bench.models.micro_batch import in_micro_batches
from casl_bench.models.model_files import ModelFiles, ShippedModel
from casl_bench.models.scorers import ScorerInfo

FLOOR = 1e-4
"""Displacements of unit embeddings shorter than this are rounding, and their cosine is noise."""


class WordTokenizer:
    """Words in lower case; padding is 0, then the words, then start and end of text.

    A CLIP of forty words needs no vocabulary of 49,408. The end has the highest number because
    open_clip finds it by argmax. `context_length` counts start and end.
    """

    def __init__(self, words: Sequence[str], context_length: int) -> None:
        self.words, self.context_length = tuple(words), context_length
        self._number = {word: 1 + i for i, word in enumerate(self.words)}
        self._start, self._end = len(self.words) + 1, len(self.words) + 2

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Tokens [n, context_length] int64 of texts, padded with 0 behind the end.

        Raises InputError where a word is not in the vocabulary or a text is too long.
        """
        out = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        for row, text in zip(out, texts, strict=True):
            tokens = [self._start, *(self._lookup(w) for w in text.lower().split()), self._end]
            if len(tokens) > self.context_length:
                raise InputError(
                    f"text of {len(tokens) - 2} words, at most {self.context_length - 2} fit",
                    where=text,
                )
            row[: len(tokens)] = torch.tensor(tokens)
        return out

    def _lookup(self, word: str) -> int:
        number = self._number.get(word)
        if number is None:
            near = difflib.get_close_matches(word, self.words, n=1, cutoff=0.4)
            offer = f"did you mean '{near[0]}'? " if near else ""
            known = ", ".join(sorted(self.words))
            raise InputError(
                f"this CLIP does not know the word '{word}'", hint=f"{offer}(known: {known})"
            )
        return number


def build_clip(config: Mapping[str, Any]) -> CLIP:
    """The open_clip network of a card's `config`, freshly initialised.

    {"embed_dim": …, "words": […], "vision": CLIPVisionCfg fields, "text": CLIPTextCfg fields}.
    """
    text = {**config["text"], "vocab_size": len(config["words"]) + 3}
    return CLIP(config["embed_dim"], dict(config["vision"]), text)


class ClipModel(ShippedModel):
    """A frozen CLIP.

    Args:
        name: as in records.
        network: an open_clip model with `encode_image`, `encode_text` and `logit_scale`.
        tokenizer: texts → [n, context] int64.
        weights_hash: identity of the weights.
        image_size: H = W the image tower takes; other sizes are resized.
        mean: of each channel, for pixels in [0, 1].
        std: likewise.
        interpolation: of the resizing, "bicubic" or "bilinear", antialiased.
        templates: sentences that a prompt is put into, at "{}"; the embedding is that of their
            mean (Radford et al. 2021, section 3.1.4; DiffusionCLIP and Asyrp do so too).
    """

    def __init__(
        self,
        name: str,
        network: Any,
        tokenizer: Callable[[list[str]], Tensor],
        weights_hash: str,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        templates: Sequence[str] = ("{}",),
        interpolation: str = "bicubic",
    ) -> None:
        self.name, self.weights_hash, self.image_size = name, weights_hash, image_size
        self._network = network.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        # From [-1, 1] straight to the tower's range.
        self._mean = (2 * torch.tensor(mean) - 1)[:, None, None]
        self._std = (2 * torch.tensor(std))[:, None, None]
        self._texts: dict[str, Tensor] = {}
        self._templates, self._interpolation = tuple(templates), interpolation
        self.device = torch.device("cpu")

    @classmethod
    def _of_files(cls, files: ModelFiles) -> Self:
        config, network = files.card["config"], files.network(build_clip)
        tokenizer = WordTokenizer(config["words"], config["text"]["context_length"])
        size, half = int(config["vision"]["image_size"]), (0.5, 0.5, 0.5)
        return cls(files.card["name"], network, tokenizer, files.weights_hash, size, half, half)

    def to(self, device: str | torch.device) -> ClipModel:
        """Move the network; embeddings stay where the images were."""
        self.device = torch.device(device)
        self._network.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)
        return self

    @property
    def logit_scale(self) -> float:
        """Factor on cosines before a softmax."""
        return float(self._network.logit_scale.exp())

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Unit image embeddings [n, D] of [n, 3, H, W] float32 in about [-1, 1], not clamped.

        Differentiable in the pixels. Without gradient a row depends on its image alone, bit for
        bit; with gradient the batch goes through whole. Raises InputError: not images of three
        channels.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not len(pixels):
            raise InputError(f"images of shape {tuple(pixels.shape)}, not [n, 3, H, W]")
        if torch.is_grad_enabled() and pixels.requires_grad:
            return self._embed(pixels)
        with torch.no_grad():
            return in_micro_batches(self._embed, pixels)

    def _embed(self, pixels: Tensor) -> Tensor:
        origin, pixels = pixels.device, pixels.to(self.device)
        size = (self.image_size, self.image_size)
        if tuple(pixels.shape[-2:]) != size:
            pixels = functional.interpolate(pixels, size, mode=self._interpolation, antialias=True)
        images = (pixels - self._mean) / self._std
        embedding: Tensor = self._network.encode_image(images, normalize=True)
        return embedding.to(origin)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Unit text embeddings [n, D] on the CPU; each prompt is embedded once and kept.

        Raises InputError where a word-level model does not know a word.
        """
        for prompt in prompts:
            if prompt not in self._texts:
                self._texts[prompt] = self._embed_text(prompt)
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def _embed_text(self, prompt: str) -> Tensor:
        """Unit embedding [D] of a prompt's sentences."""
        tokens = self._tokenizer([template.format(prompt) for template in self._templates])
        embedded: Tensor = self._network.encode_text(tokens.to(self.device), normalize=True).cpu()
        # The mean of one sentence is left as it is: it would be rounded again.
        return embedded[0] if len(embedded) == 1 else functional.normalize(embedded.mean(0), dim=0)

    def text_direction(self, source: str, target: str) -> Tensor:
        """Unit displacement [D] from one text to another. Raises InputError where there is none."""
        a, b = self.encode_text([source, target])
        length = (b - a).norm()
        if float(length) < 1e-6:
            raise InputError("source and target prompt do not differ", where=f"{source} / {target}")
        direction: Tensor = (b - a) / length
        return direction


class ClipScorer:
    """Directional agreement of images with texts, by a CLIP that never guides."""

    def __init__(self, clip: ClipModel) -> None:
        self.clip = clip
        self.info = ScorerInfo(clip.name, "text", 1, clip.weights_hash)

    @classmethod
    def load(cls, folder: Path) -> ClipScorer:
        """Read a shipped scoring CLIP. Raises InvalidBenchmarkError where files are damaged."""
        return cls(ClipModel.load(folder))

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Unit embeddings [n, D] of images [n, 3, H, W], clamped to [-1, 1] as a viewer would."""
        return self.clip.encode_image(pixels.float().clamp(-1, 1)).cpu()

    def direction_similarity(
        self, original: Tensor, edited: Tensor, source: str, target: str
    ) -> Tensor:
        """cos(E(edited) - E(original), T(target) - T(source)): [..., n], 0 where nothing moved.

        Of embeddings as from `embed`: original [n, D], edited [..., n, D], e.g. one row of images a
        strength. Raises InputError where shapes do not fit.
        """
        if original.ndim != 2 or edited.shape[-2:] != original.shape:
            raise InputError(
                f"embeddings of shape {tuple(edited.shape)} against {tuple(original.shape)}"
            )
        moved = edited - original
        length = moved.norm(dim=-1)
        cosine = moved @ self.clip.text_direction(source, target) / length.clamp(min=FLOOR)
        return torch.where(length < FLOOR, 0.0, cosine).clamp(-1, 1)
