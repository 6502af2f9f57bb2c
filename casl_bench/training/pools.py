"""Pictures to train on, rendered or photographed: made once, kept as bytes, read by their number.

A pool lies in a folder of all pools and is memory-mapped. A rendered one is drawn, and its key is
what the renderer draws; one of photographs is read from a data set's split, and its key is the data
set's revision, which every file of it goes into. Photographs have labels and no known factors:
nothing can be drawn again with one attribute flipped, and the other picture of a photograph is its
mirror image.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from casl_bench.core.errors import UsageError
from casl_bench.core.files import hash_bytes, hash_json, new_file
from casl_bench.core.option_types import MOST, BoundedInt, LocalPath, user_cache
from casl_bench.core.registry import discover
from casl_bench.core.seeding import derive_seed
from casl_bench.diffusion.ddim import ddim_generation
from casl_bench.domains.dataset import DATASETS, Dataset, Split
from casl_bench.domains.options import DataSource
from casl_bench.domains.rendered import RENDERED, RenderedDomain
from casl_bench.domains.rendering.captions import CONTEXT_LENGTH, CaptionWriter
from casl_bench.domains.rendering.renderer import IMAGE_SIZE, Drawing, Factors, to_pixels
from casl_bench.models.backbone import Backbone
from casl_bench.models.micro_batch import row_blocks
from casl_bench.models.noise_schedule import power_timesteps
from casl_bench.models.random_numbers import image_noise
from casl_bench.photos.photo_dataset import PhotoDataset
from casl_bench.training.photo_captions import PhotoCaptions

CHUNK = 8192
"""Pictures per chunk file: the work lost at most when a build is killed."""

WALK = power_timesteps(20, 999, 1.5)
"""The walk of the rendered suites."""
REGENERATED_EVERY = 8
REGENERATED_FROM = tuple(t for t in WALK if 50 <= t <= 400)
IMAGES = 40_960
"""Pictures to train on, of a data set all if it has fewer."""

_BLOCK = 256


@dataclass(frozen=True)
class Pool:
    """Photographs and their labels, in pairs if mirrored: the second one is the mirror image.

    Attributes:
        name: of the domain or data set.
        revision: changes whenever a picture may.
        attributes: names of the labels' columns.
        images: uint8 [m, 64, 64, 3], RGB, memory-mapped read-only.
        known: bool [m, A] labels of the images; None where there are none.
        mirrored: whether every image is there twice.
    """

    name: str
    revision: str
    attributes: tuple[str, ...]
    images: NDArray[np.uint8]
    known: NDArray[np.bool_] | None
    mirrored: bool

    def __len__(self) -> int:
        return len(self.images) * (2 if self.mirrored else 1)

    def batch(self, index: Tensor, flipped: bool = False) -> Tensor:
        """Pictures as float [n, 3, H, W] in [-1, 1]; if `flipped` the mirror image of each."""
        if not self.mirrored:
            return to_pixels(self.images[index.numpy()])
        pixels = to_pixels(self.images[index.numpy() // 2])
        turned = (index % 2 == 1) ^ flipped
        return torch.where(turned[:, None, None, None], pixels.flip(3), pixels)

    def labels(self, index: Tensor) -> Tensor:
        """Labels bool [n, A] of pictures and of their mirror images."""
        if self.known is None:
            raise no_labels(self.name)
        rows = index.numpy() // (2 if self.mirrored else 1)
        return torch.from_numpy(self.known[rows])


@dataclass(frozen=True)
class RenderedPool(Pool):
    """Rendered pictures with all that is known of them; none is mirrored.

    Attributes:
        flipped: uint8 [n, 64, 64, 3], each picture again with one attribute negated and all else
            equal; None where the pool was asked for without.
        flipped_attribute: int64 [n], the column that was negated in `flipped`.
    """

    drawing: Drawing
    factors: Factors
    flipped: NDArray[np.uint8] | None
    flipped_attribute: NDArray[np.int64]

    def batch(self, index: Tensor, flipped: bool = False) -> Tensor:
        """Pictures as float [n, 3, H, W] in [-1, 1]; the re-rendered ones if `flipped`."""
        source = self.flipped if flipped else self.images
        if source is None:
            raise UsageError("the pool holds no flipped pictures", hint="load it with flips=True")
        return to_pixels(source[index.numpy()])

    def flipped_labels(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Labels bool [n, A] of pictures and of their flips, and what differs, int64 [n]."""
        labels = self.labels(index)
        column = torch.from_numpy(self.flipped_attribute[index.numpy()])
        other = labels.clone()
        other[torch.arange(len(index)), column] ^= True
        return labels, other, column


def pool_folder(cache: Path | None) -> Path:
    """The folder of all pools: in the user's cache folder where none is named."""
    return cache or user_cache("casl_bench", "give --cache") / "render_pools"


def load_pool(
    drawing: Drawing,
    count: int,
    seed: int,
    split: str = "train",
    cache_dir: Path | None = None,
    *,
    flips: bool = False,
) -> RenderedPool:
    """The first `count` pictures of a training stream, drawn now or taken from the cache.

    Args:
        drawing: the renderer.
        count: number of pictures, at least 1.
        seed: of the stream; streams of two seeds or splits share no picture, and none shares a
            picture with the benchmark's own splits.
        split: a name that separates training from held-out streams.
        cache_dir: folder of all pools; in the user's cache folder where None.
        flips: whether each picture is drawn a second time with attribute `index % A` negated.
    """
    root = pool_folder(cache_dir)

    def cached(factors: Factors, kind: str) -> NDArray[np.uint8]:
        key = hash_json([drawing.revision, seed, split, count, kind])[:16]
        return _drawn(
            drawing, factors, root / f"{drawing.name}-{split}-{seed}-{count}-{kind}-{key}"
        )

    factors = drawing.sample(np.arange(count), derive_seed(seed, "render_pool", split))
    column = np.arange(count) % len(drawing.attributes)
    images = cached(factors, "plain")
    flipped = None
    if flips:
        attributes = factors.attributes.copy()
        attributes[np.arange(count), column] ^= True
        flipped = cached(replace(factors, attributes=attributes), "flipped")
    return RenderedPool(
        drawing.name, drawing.revision, drawing.attributes, images, factors.attributes, False,
        drawing, factors, flipped, column,
    )  # fmt: skip


def _drawn(drawing: Drawing, factors: Factors, folder: Path) -> NDArray[np.uint8]:
    """The pictures of these factors from `folder/images.npy`, which is written first if absent."""
    done = folder / "images.npy"
    if not done.exists():
        parts = folder / "parts"
        parts.mkdir(parents=True, exist_ok=True)
        starts = range(0, len(factors), CHUNK)
        for start in starts:
            part = parts / f"{start:08d}.npy"
            if not part.exists():
                with new_file(part) as file:
                    np.save(file, drawing.render_parallel(factors[start : start + CHUNK]))
        whole = np.concatenate([np.load(parts / f"{start:08d}.npy") for start in starts])
        with new_file(done) as file:
            np.save(file, whole)
        shutil.rmtree(parts, ignore_errors=True)
    images: NDArray[np.uint8] = np.load(done, mmap_mode="r")
    return images


def load_photographs(
    dataset: Dataset, count: int, split: Split, cache: Path | None, mirrored: bool
) -> Pool:
    """The first `count` images of a split, read now or taken from the cache."""
    card = dataset.card
    key = hash_json([card.revision, card.resolution, card.attributes, split, count])[:16]
    folder = pool_folder(cache) / f"{card.name}-{split}-{count}-photographs-{key}"
    done, labels = folder / "images.npy", folder / "labels.npy"
    if not done.exists():
        images, known = read_photographs(dataset, split, count)
        folder.mkdir(parents=True, exist_ok=True)
        if known is not None:
            with new_file(labels) as file:
                np.save(file, known)
        with new_file(done) as file:
            np.save(file, images)
    return Pool(
        card.name, card.revision, card.attributes, np.load(done, mmap_mode="r"),
        np.load(labels) if labels.exists() else None, mirrored,
    )  # fmt: skip


def read_photographs(
    dataset: Dataset, split: Split, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
    """Images uint8 [n, H, W, 3] of a split and their labels bool [n, A], None if unknown."""
    batch = dataset.load(split, count)
    images = np.empty((count, *batch.pixels.shape[2:], 3), dtype=np.uint8)
    for block in row_blocks(count, _BLOCK):
        images[block] = as_bytes(batch.pixels[block])
    labels = None if batch.attributes is None else batch.attributes.bool().numpy()
    return images, labels


def no_labels(name: str) -> UsageError:
    """The error where labels are asked for that a data set does not have."""
    return UsageError(
        f"{name} has no labels to train on here", hint="give the layout that holds its annotation"
    )


def as_bytes(pixels: Tensor) -> NDArray[np.uint8]:
    """Float [n, 3, H, W] in [-1, 1] → uint8 [n, H, W, 3]."""
    whole = ((pixels + 1) * 127.5).round().clamp(0, 255).byte()
    found: NDArray[np.uint8] = whole.permute(0, 2, 3, 1).numpy()
    return found


def with_regenerated(pool: Pool, backbone: Backbone, seed: int, cache: Path | None = None) -> Pool:
    """The pool with every eighth picture, and its flip, as a diffusion model draws them.

    Noise is added up to a t of at most 400 and taken off again by DDIM, with the same noise for a
    picture and its flip: labels and factors still hold, and the pictures have the marks that
    edits of this model have.
    """
    rows = np.arange(0, len(pool.images), REGENERATED_EVERY)
    root = pool_folder(cache)

    def mixed(images: NDArray[np.uint8], kind: str) -> NDArray[np.uint8]:
        key = hash_json(
            [pool.revision, backbone.weights_hash, seed, len(images), kind,
             hash_bytes(images[rows].tobytes())]
        )[:16]  # fmt: skip
        done = root / f"{pool.name}-regenerated-{kind}-{key}.npy"
        if not done.exists():
            root.mkdir(parents=True, exist_ok=True)
            with new_file(done) as file:
                np.save(file, _regenerated(images[rows], rows, backbone, seed))
        together = np.array(images)
        together[rows] = np.load(done)
        return together

    if isinstance(pool, RenderedPool) and pool.flipped is not None:
        return replace(
            pool, images=mixed(pool.images, "plain"), flipped=mixed(pool.flipped, "flipped")
        )
    return replace(pool, images=mixed(pool.images, "plain"))


def _regenerated(
    images: NDArray[np.uint8], rows: NDArray[np.int64], backbone: Backbone, seed: int
) -> NDArray[np.uint8]:
    out = np.empty_like(images)
    for k, t in enumerate(REGENERATED_FROM[: len(images)]):
        x_0 = to_pixels(images[k :: len(REGENERATED_FROM)])
        ids = [f"regenerated-{row}" for row in rows[k :: len(REGENERATED_FROM)]]
        noise = image_noise(x_0.shape[1:], ids, seed, "regenerated pictures")
        alpha_bar = backbone.schedule.alpha_bar(t)
        x_t = alpha_bar**0.5 * x_0 + (1 - alpha_bar) ** 0.5 * backbone.colour(noise)
        pixels = ddim_generation(backbone, x_t, [s for s in WALK if s <= t]).clamp(-1, 1)
        out[k :: len(REGENERATED_FROM)] = as_bytes(pixels)
    return out


@dataclass(frozen=True)
class Pictures:
    """Where the pictures of a training come from, and the words for them.

    Attributes:
        name: of the domain or data set.
        subject: what is seen, in the plural, for a card.
        attributes: names of the labels' columns.
        settings: what determines the pictures, for a checkpoint and a card.
        load: pictures of the split "train", or of one that no training sees: of (split, count,
            seed, folder of pools, whether with flips).
        images: how many are trained on by default.
        most_held_out: how many there are to hold out.
        prompts: of each attribute the texts that deny and state it, in which its concept is asked.
        writers: a manner of speaking and who writes in it, for the CLIP that guides and for the one
            that scores.
        words: those of all captions and prompts.
        context_length: tokens of the longest.
        drawing: the renderer; None for photographs.
    """

    name: str
    subject: str
    attributes: tuple[str, ...]
    settings: dict[str, Any]
    load: Callable[[str, int, int, Path | None, bool], Pool]
    images: int
    most_held_out: int
    prompts: tuple[tuple[str, str], ...]
    writers: tuple[tuple[str, CaptionWriter], ...]
    words: list[str]
    context_length: int
    drawing: Drawing | None = None


def rendered_pictures(domain: RenderedDomain) -> Pictures:
    """Drawn ones; splits are streams of random numbers."""
    drawing, wording = domain.drawing, domain.wording
    concepts = (*drawing.concepts, *drawing.tuning_concepts)
    prompts = {c.attribute: (c.source_prompt, c.target_prompt) for c in concepts}
    return Pictures(
        name=domain.name,
        subject=f"rendered {drawing.subject}",
        attributes=drawing.attributes,
        settings={"renderer": drawing.revision, "attributes": list(drawing.attributes)},
        load=lambda split, count, seed, cache, flips: load_pool(
            drawing, count, seed, split, cache, flips=flips
        ),
        images=IMAGES,
        most_held_out=MOST,
        prompts=tuple(prompts[name] for name in drawing.attributes),
        writers=tuple((manner, CaptionWriter(wording, manner)) for manner in wording.manners),
        words=wording.vocabulary(),
        context_length=CONTEXT_LENGTH,
        drawing=drawing,
    )


def photographs(dataset: PhotoDataset, mirrored: bool) -> Pictures:
    """Of a data set: its split `train` is trained on, `validation` is held out, never mirrored."""
    card = dataset.card
    captions = PhotoCaptions(card.attributes, card.concepts)
    words, context_length = captions.vocabulary

    def load(split: str, count: int, seed: int, cache: Path | None, flips: bool) -> Pool:
        if split == "train":
            return load_photographs(dataset, count, "train", cache, mirrored)
        return load_photographs(dataset, count, "validation", cache, mirrored=False)

    return Pictures(
        name=card.name,
        subject=f"photographs of `{card.name}`",
        attributes=card.attributes,
        settings={
            "revision": card.revision, "mirrored": mirrored, "attributes": list(card.attributes)
        },
        load=load,
        images=min(IMAGES, dataset.count("train")),
        most_held_out=dataset.count("validation"),
        prompts=captions.prompts,
        writers=captions.writers,
        words=words,
        context_length=context_length,
    )  # fmt: skip


def open_photographs(name: str, data_root: Path | None, resolution: int) -> PhotoDataset:
    """A data set of photographs. Raises UsageError where there is none of that name or folder."""
    discover("casl_bench.photos", DATASETS)
    make: Callable[..., Any] = DATASETS.factory(name)
    if "source" not in inspect.signature(make).parameters:
        hint = f"give --domain {name}; its attributes: casl-bench train classifier"
        raise UsageError(f"{name} is rendered", hint=hint)
    if data_root is None:
        raise UsageError(f"no images of {name}", hint="say where they are: --data-root FOLDER")
    found: PhotoDataset = make(DataSource(root=data_root), resolution)
    return found


def domain_option(function: Callable[..., None]) -> Callable[..., None]:
    """Decorator: `--domain`, of rendered pictures."""
    option = click.option("--domain", type=click.Choice(list(RENDERED)),
                          help="[default: rendered_faces]")  # fmt: skip
    return option(function)


def dataset_options(function: Callable[..., None]) -> Callable[..., None]:
    """Decorator: a data set of photographs in the place of a domain."""
    for option in (
        click.option("--unmirrored", is_flag=True, help="Photographs as they are alone, not their "
                     "mirror images: where an attribute knows left from right."),
        click.option("--data-root", type=LocalPath(exists=True, file_okay=False),
                     help="Folder of that data set."),
        click.option("--dataset", help="Data set of photographs in the place of a domain."),
    ):  # fmt: skip
        function = option(function)
    return function


def pool_options(function: Callable[..., None]) -> Callable[..., None]:
    """Decorator: how many pictures, and where pools are kept."""
    for option in (
        click.option("--images", type=BoundedInt(), help=f"[default: {IMAGES}, or as many "
                     "photographs as there are]"),
        click.option("--cache", type=LocalPath(), help="Folder of pools of pictures."),
    ):  # fmt: skip
        function = option(function)
    return function


def chosen_pictures(
    domain: str | None,
    dataset: str | None = None,
    data_root: Path | None = None,
    unmirrored: bool = False,
) -> Pictures:
    """What the options name. Raises UsageError where they do not go together."""
    if dataset is None:
        if data_root is not None or unmirrored:
            raise UsageError("rendered pictures have no folder", hint="give --dataset NAME, too")
        return rendered_pictures(RENDERED[domain or "rendered_faces"])
    if domain is not None:
        raise UsageError("give either --domain or --dataset")
    return photographs(open_photographs(dataset, data_root, IMAGE_SIZE), not unmirrored)
