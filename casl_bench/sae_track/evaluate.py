"""All metrics of one dictionary, range of timesteps by range of timesteps."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from casl_bench.core.seeding import derive_seed
from casl_bench.metrics.dictionaries import SAE_METRICS, acting, coding, mean_estimate, reading
from casl_bench.metrics.dictionaries.acting import Edits, Headline, precision_at_flips
from casl_bench.metrics.dictionaries.reading import Match
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.metric import Estimate
from casl_bench.results.record import Measurement
from casl_bench.results.sae_record import LatentPage
from casl_bench.runs.scoring import to_8_bits
from casl_bench.sae.sae import HSpaceSae
from casl_bench.sae.sites import decode_at
from casl_bench.sae_track import edits
from casl_bench.sae_track.data import SiteData
from casl_bench.sae_track.edits import Change
from casl_bench.sae_track.suites import SaeSuite, TimeRange

_EPS_PLACES, _EPS_IMAGES = 3, 8
"""Timesteps of a range, and test images, on which the eps error is measured."""
_CODING_IMAGES = 32
_TOP_IMAGES = 8

HEADLINE: Headline = precision_at_flips
"""How steering is scored. The editing track's headline; another one is put here."""

Measured = dict[str, Measurement]
Places = NDArray[np.intp]


@dataclass
class Evaluation:
    """Numbers by range of timesteps, pages of latents, and pictures by file name."""

    measurements: dict[str, Measured] = field(default_factory=dict)
    latents: tuple[LatentPage, ...] = ()
    pictures: dict[str, bytes] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def evaluate(
    sae: HSpaceSae,
    other_seed: HSpaceSae | None,
    data: SiteData,
    suite: SaeSuite,
    name: str,
    *,
    acts: bool = True,
) -> Evaluation:
    """Measure a dictionary; `other_seed` is one that differs in its seed alone, `name` its row's.

    Unless it `acts` no image is generated with its code changed, which is most of the time.

    Source of each metric: `SAE_METRICS`.
    """
    found = Evaluation()
    for place, time_range in enumerate(suite.ranges):
        one = _Range(sae, data, suite, time_range)
        measured: Measured = {}
        parts = {"coding": one.coding, "reading": one.reading}
        if acts:
            parts["acting"] = one.acting
        for part, measure in parts.items():
            started = time.monotonic()
            measured |= measure()
            spent = time.monotonic() - started
            found.seconds[part] = round(found.seconds.get(part, 0.0) + spent, 2)
        measured["stability"] = _stability(sae, other_seed)
        for metric, info in SAE_METRICS.items():
            if metric not in measured:
                skipped = info.room == "acting" and not acts
                reason = "not measured with this seed" if skipped else "no image to measure it on"
                measured[metric] = Measurement.missing(reason)
        found.measurements[time_range.name] = measured
        if place == 0:
            found.latents, found.pictures = one.pages(name)
    return found


def _stability(sae: HSpaceSae, other: HSpaceSae | None) -> Measurement:
    if not sae.sae.info.seeded:
        return Measurement.undefined("no seed is in it")
    if other is None:
        return Measurement.missing("one seed only")
    value = coding.matched_cosine(
        sae.sae.W_dec.detach().numpy(), other.sae.W_dec.detach().numpy(), sae.sae.info.signed
    )
    return Measurement.of(value, sae.d_sae)


@dataclass(frozen=True)
class _Trial:
    """Test images by their places, what is done to their codes, and what is made of the result."""

    rows: Sequence[int]
    change: Change
    score: Callable[[Tensor], dict[str, Estimate]]


class _Range:
    """One dictionary on one range of timesteps."""

    def __init__(
        self, sae: HSpaceSae, data: SiteData, suite: SaeSuite, time_range: TimeRange
    ) -> None:
        self.sae, self.data, self.suite = sae, data, suite
        self.walk = data.walk(time_range.low, time_range.high)
        self.place = self.walk.middle
        self.t = self.walk.timesteps[self.place]
        self.seed = derive_seed(0, "sae track", time_range.name)
        self.train_codes = self._codes(data.train.h(self.place))
        self.test_codes = self._codes(data.test.h(self.place))
        m = data.pair_images
        base = self.test_codes[:m]
        flip = self._codes(data.flipped.h(self.place)).view(-1, m, *base.shape[1:])
        has = torch.from_numpy(data.test_labels[:m].T.copy())[:, :, None, None]
        # [A, m, F, P]: the code of every image with and without each factor
        self.on = torch.where(has, base[None], flip)
        self.off = torch.where(has, flip, base[None])
        self.pooled_train = self._pooled(self.train_codes)
        self.pooled_test = self._pooled(self.test_codes)
        self.label_scores = np.stack([self._contrast(labels) for labels in data.train_labels.T])
        self.match = Match.of(self.label_scores)
        self._turned_up: dict[int, tuple[Tensor, Array]] = {}

    def _codes(self, maps: Tensor) -> Tensor:
        """[n, F, P]."""
        return self.sae.encode(maps, self.t).flatten(2)

    @staticmethod
    def _pooled(codes: Tensor) -> Array:
        found: Array = codes.mean(-1, dtype=torch.float64).numpy()
        return found

    def _contrast(self, labels: NDArray[np.bool_]) -> Array:
        """[F] contrast of pooled training codes; 0 where all images are of one class."""
        if labels.all() or not labels.any():
            return np.zeros(self.sae.d_sae)
        return reading.contrast(self.pooled_train, labels)

    def _each(
        self, name: str, of: Callable[[int], Estimate | None], which: Sequence[int]
    ) -> Measured:
        """A metric of every attribute, and their mean."""
        found = {a: e for a in which if (e := of(a)) is not None}
        measured = {
            f"{name}/{self.data.attributes[a]}": Measurement.from_estimate(e)
            for a, e in found.items()
        }
        return {name: Measurement.from_estimate(reading.mean_over([*found.values()], self.seed)),
                **measured}  # fmt: skip

    # What is kept.

    @torch.no_grad()
    def coding(self) -> Measured:
        """Explained variance, sparsity, and what the loss costs downstream."""
        data, sae, steps = self.data, self.sae, self.walk.timesteps
        images = slice(0, _CODING_IMAGES)
        h, h_hat, active, fired = [], [], [], []
        for place in self.walk.places:
            maps = data.test.h(place, images)
            z = sae.encode(maps, steps[place])
            rows = sae.normalise(maps, steps[place]).view(len(maps), -1, sae.channels)
            again = sae.normalise(sae.decode(z, steps[place]), steps[place]).view_as(rows)
            h.append(rows.double())
            h_hat.append(again.double())
            active.append((z != 0).double().sum(1).flatten(1).mean(1))
            fired.append((z != 0).double().mean((0, 2, 3)))
        frequency = torch.stack(fired).mean(0).numpy()
        n = sae.d_sae
        few = slice(0, _EPS_IMAGES)
        return {
            "explained_variance": Measurement.from_estimate(
                coding.explained_variance(
                    torch.cat(h, 1).numpy(), torch.cat(h_hat, 1).numpy(), self.seed
                )
            ),
            "l0": Measurement.from_estimate(
                coding.l0(torch.stack(active).mean(0).numpy(), self.seed)
            ),
            "dead_share": Measurement.of(coding.dead_share(frequency), n),
            "dense_share": Measurement.of(coding.dense_share(frequency), n),
            "eps_error": self._eps_error(few),
            "attribute_agreement": self._agreement(few),
        }

    def _eps_error(self, rows: slice) -> Measurement:
        data, places = self.data, self.walk.places
        chosen = sorted({round(i) for i in np.linspace(0, len(places) - 1, _EPS_PLACES)})
        plain, spliced = [], []
        store = data.artifacts.test.trajectories
        assert store is not None
        for place in (places[i] for i in chosen):
            t = self.walk.timesteps[place]
            state = data.domain.backbone.encode(store.x_t(place, rows), t)
            plain.append(data.domain.backbone.decode(state).cpu())
            splice = partial(self.sae.reconstruct, t=t)
            eps, _ = decode_at(data.domain.backbone, state, data.site, splice)
            spliced.append(eps.cpu())
        before, after = (torch.stack(x, 1).double().numpy() for x in (plain, spliced))
        return Measurement.from_estimate(coding.eps_error(before, after, self.seed))

    def _agreement(self, rows: slice) -> Measurement:
        def splice(h: Tensor, place: int, rows: slice) -> Tensor:
            return self.sae.reconstruct(h, self.walk.timesteps[place])

        count = min(rows.stop, len(self.data.test_labels))
        logits = self._generated(range(count), splice)
        alike = (logits > 0) == (self.data.base_logits[:count] > 0)
        return Measurement.from_estimate(mean_estimate(alike.mean(1).astype(np.float64), self.seed))

    def _generated(self, rows: Sequence[int], change: Change) -> Array:
        return self.data.logits(self._images(rows, change))

    def _images(self, rows: Sequence[int], change: Change) -> Tensor:
        x_t = self.data.x_t(self.walk.high, rows)
        return edits.generate(self.data.domain.backbone, x_t, self.walk, self.data.site, change)

    # What can be read.

    def reading(self) -> Measured:
        """Probes, pairs, absorption, images and places."""
        data = self.data
        every = range(len(data.attributes))
        on, off = self._pooled(self.on), self._pooled(self.off)
        raw = on - off  # [A, m, F]
        change = reading.standardised(raw, self.pooled_test.std(0))
        found: Measured = {}
        for name, measure in (
            ("pair_score", reading.pair_score),
            ("pair_direction", reading.pair_direction),
            ("pair_share", reading.pair_share),
        ):
            found |= self._each(name, partial(measure, change, self.match, seed=self.seed), every)
        text = data.similarity_to_text
        by_text = np.stack(
            [
                reading.contrast(self.pooled_train, reading.halves(text[a]))
                if a in text
                else self.label_scores[a] * 0
                for a in every
            ]
        )
        match = Match.of(by_text)
        found |= self._each(
            "pair_score_text",
            lambda a: reading.pair_score(change, match, a, self.seed) if a in text else None,
            every,
        )
        moved, directions = self._moved(), self.sae.sae.W_dec.detach().double().numpy()
        found |= self._each(
            "absorption",
            lambda a: reading.absorption(raw[a], directions, moved[a], self.match, a, self.seed),
            every,
        )
        found |= self._probes(text)
        found["monosemanticity"] = Measurement.from_estimate(
            reading.monosemanticity(
                self._pooled(self.test_codes.abs()), data.image_similarity, self.seed
            )
        )
        found |= self._each("localisation", self._localisation, every)
        return found

    def _moved(self) -> Array:
        """[A, m, C] change of normalised activations when a factor is turned on, over positions."""
        data, m = self.data, self.data.pair_images
        base = data.test.h(self.place, slice(0, m))
        flips = data.flipped.h(self.place)
        scale = float(self.sae.scale[self.sae.timesteps.index(self.t)])
        pooled = [(x.double().mean((2, 3)) / scale).numpy() for x in (base, flips)]
        sign = np.where(data.test_labels[:m].T, -1.0, 1.0)[:, :, None]
        found: Array = sign * (pooled[1].reshape(-1, m, base.shape[1]) - pooled[0])
        return found

    def _localisation(self, attribute: int) -> Estimate:
        maps = self.on[attribute, :, self.match.latent[attribute]].abs().double().numpy()
        return reading.localisation(maps, self.data.masks[attribute], self.seed)

    def _probes(self, text: Mapping[int, Array]) -> Measured:
        """Logistic probes on k (latent, position) units."""
        data = self.data
        train = self.train_codes.flatten(1).numpy()
        test = self.test_codes.flatten(1).numpy()
        ks = [k for k in self.suite.probe_ks if k <= train.shape[1]]
        areas: dict[str, dict[int, Estimate]] = {"probe_labels": {}, "probe_text": {}}
        needed: dict[int, Estimate] = {}
        by_k: dict[str, list[float]] = {}
        for a in range(len(data.attributes)):
            labels, truth = data.train_labels[:, a], data.test_labels[:, a]
            if labels.all() or not labels.any():
                continue
            guides = {"probe_labels": labels}
            if a in text:
                guides["probe_text"] = reading.halves(text[a])
            for name, guide in guides.items():
                order = reading.best_features(reading.contrast(train, guide), max(ks))
                right = {}
                for k in ks:
                    columns = order[:k]
                    right[k] = reading.probe_right(
                        train[:, columns], labels, test[:, columns], truth
                    )
                    by_k.setdefault(f"{name}.k{k}", []).append(float(right[k].mean()))
                areas[name][a] = reading.area_over_k(right, self.seed)
                if name == "probe_labels":
                    accuracy = {k: float(r.mean()) for k, r in right.items()}
                    k = reading.latents_needed(accuracy)
                    needed[a] = Estimate(float(k), len(truth))
        found: Measured = {}
        for name, own in areas.items():
            found |= self._each(name, own.get, range(len(data.attributes)))
        found |= self._each("splitting", needed.get, range(len(data.attributes)))
        return found | {
            name: Measurement.of(float(np.mean(values)), len(data.test_labels))
            for name, values in by_k.items()
        }

    # What happens when codes are changed.

    def acting(self) -> Measured:
        """Interchange, ablation and steering at every k; a metric's own number is the best k's."""
        which = self.data.edit_attributes(self.suite.edit_attributes)
        ks = sorted({min(k, self.sae.d_sae) for k in self.suite.edit_ks})
        trials = {(a, k): self._trials(a, k) for a in which for k in ks}
        if self.sae.sae.info.name == CEILING:
            whole = torch.arange(self.sae.d_sae)
            trials |= {(a, _WHOLE): [self._interchange(a, whole)] for a in which}
        every = [trial for own in trials.values() for trial in own]
        images = self._images(
            [row for trial in every for row in trial.rows],
            edits.together([(len(trial.rows), trial.change) for trial in every]),
        )
        parts = iter(images.split([len(trial.rows) for trial in every]))
        scored: dict[tuple[int, int], dict[str, Estimate]] = {}
        for place, own_trials in trials.items():
            scored[place] = {}
            for trial in own_trials:
                scored[place] |= trial.score(next(parts))
        found: dict[str, dict[int, Estimate]] = {}
        at_k: dict[str, list[float]] = {}
        for a in which:
            best: dict[str, Estimate] = {}
            for k in ks:
                own = scored[a, k]
                for name, estimate in own.items():
                    if estimate.value is not None:
                        at_k.setdefault(f"{name}.k{k}", []).append(estimate.value)
                for lead, group in _AT_ONE_K.items():
                    if lead in own and _is_better(lead, best.get(lead), own[lead]):
                        best |= {name: own[name] for name in group}
            for name, estimate in best.items():
                found.setdefault(name, {})[a] = estimate
            if (a, _WHOLE) in scored:
                found.setdefault("whole_swap", {})[a] = scored[a, _WHOLE]["cause"]
        measured: Measured = {}
        for name, by_attribute in found.items():
            measured |= self._each(name, by_attribute.get, which)
        return measured | {
            name: Measurement.of(float(np.mean(values)), len(values))
            for name, values in at_k.items()
        }

    def _trials(self, attribute: int, k: int) -> list[_Trial]:
        latents = torch.from_numpy(reading.best_features(self.label_scores[attribute], k).copy())
        trials = [
            self._interchange(attribute, latents),
            self._ablation(attribute, latents),
            self._steering(attribute, latents),
        ]
        return [trial for trial in trials if trial is not None]

    def _interchange(self, attribute: int, latents: Tensor) -> _Trial:
        """Cause with the image whose factor is flipped, isolate with one of another factor."""
        data, m = self.data, self.data.edit_images
        a_count = len(data.attributes)
        others = [(attribute + 1 + i) % a_count for i in range(a_count - 1)]
        sources = [attribute * data.pair_images + i for i in range(m)]
        if others:
            sources += [others[i % len(others)] * data.pair_images + i for i in range(m)]
        codes: dict[int, Tensor] = {}

        def source(place: int) -> Tensor:
            if place not in codes:
                maps = data.flipped.h(place, sources)
                codes[place] = self.sae.encode(maps, self.walk.timesteps[place])[:, latents]
            return codes[place]

        def score(images: Tensor) -> dict[str, Estimate]:
            decisions = data.logits(images) > 0
            wanted = data.flipped_decisions[attribute, :m, attribute]
            cause = acting.cause(wanted, decisions[:m, attribute], self.seed)
            isolate = Estimate(None, 0, reason="there is no other attribute")
            if others:
                base = np.delete(data.base_logits[:m] > 0, attribute, axis=1)
                kept = np.delete(decisions[m:], attribute, axis=1)
                isolate = acting.isolate(base, kept, self.seed)
            both = [e.value for e in (cause, isolate) if e.value is not None]
            mean = Estimate(float(np.mean(both)), cause.n)
            return {"cause": cause, "isolate": isolate, "disentangle": mean}

        rows = [*range(m)] * (2 if others else 1)
        return _Trial(rows, edits.interchange(self.sae, source, latents, self.walk), score)

    def _rows_with(self, attribute: int, present: bool) -> list[int]:
        """The first test images whose reconstruction has, or lacks, an attribute."""
        has = self.data.base_logits[:, attribute] > 0
        return [int(i) for i in np.flatnonzero(has == present)[: self.data.edit_images]]

    def _ablation(self, attribute: int, latents: Tensor) -> _Trial | None:
        rows = self._rows_with(attribute, present=True)
        if not rows:
            return None

        def score(images: Tensor) -> dict[str, Estimate]:
            moved = self._moved_logits(images, rows)
            others = np.abs(np.delete(moved, attribute, axis=1))
            side = others.mean(1) if others.shape[1] else np.zeros(len(rows))
            return {"ablation": acting.target_share(-moved[:, attribute], side, self.seed)}

        return _Trial(rows, edits.ablate(self.sae, latents, self.walk), score)

    def _moved_logits(self, images: Tensor, rows: Sequence[int]) -> Array:
        """[n, A] change against the reconstructions, in standard deviations."""
        logits = self.data.logits(images)
        found: Array = (logits - self.data.base_logits[list(rows)]) / self.data.logit_spread
        return found

    def _shift(self, attribute: int, latents: Tensor) -> Tensor:
        """[k, h, w]: what the mean code of training images with the attribute has more."""
        has = torch.from_numpy(self.data.train_labels[:, attribute])
        codes = self.train_codes[:, latents]
        shift = codes[has].mean(0) - codes[~has].mean(0)
        height, width = self.data.train.h(self.place, slice(0, 1)).shape[2:]
        return shift.view(len(latents), height, width)

    def _steering(self, attribute: int, latents: Tensor) -> _Trial | None:
        data, strengths = self.data, self.suite.strengths
        rows = self._rows_with(attribute, present=False)
        has = data.train_labels[:, attribute]
        if not rows or has.all() or not has.any():
            return None
        shift, n = self._shift(attribute, latents), len(rows)

        def score(images: Tensor) -> dict[str, Estimate]:
            logits = data.logits(images).reshape(len(strengths), n, -1)
            moved = (logits - data.base_logits[rows]) / data.logit_spread
            others = np.abs(np.delete(moved, attribute, axis=2))
            edited = Edits(
                moved[..., attribute],
                others.mean(2) if others.shape[2] else np.zeros(moved.shape[:2]),
                logits[..., attribute] > 0,
            )
            reached = [i for i, f in enumerate(edited.flipped) if f.mean() >= acting.FLIP_GOAL]
            strength = strengths[reached[0] if reached else -1]
            if len(latents) == 1:
                plain = data.artifacts.test.inversions.reconstruction[rows]
                self._turned_up[attribute] = torch.cat([plain, images[-n:]]), moved[-1].mean(0)
            return {
                "steering": HEADLINE(edited, self.seed),
                "off_manifold": self._off_manifold(shift, latents, strength),
            }

        factors = torch.tensor(strengths).repeat_interleave(n)
        change = edits.steer(self.sae, shift, latents, factors, self.walk)
        return _Trial(rows * len(strengths), change, score)

    def _off_manifold(self, shift: Tensor, latents: Tensor, strength: float) -> Estimate:
        data = self.data
        maps = data.test.h(self.place, slice(0, _CODING_IMAGES))
        moved = maps + edits.move(self.sae, strength * shift[None], latents, self.t)
        mean, covariance = self._moments
        distances = [
            acting.mahalanobis(
                self.sae.normalise(x, self.t).double().numpy(), mean, covariance
            ).reshape(len(maps), -1).mean(1)
            for x in (moved, maps)
        ]  # fmt: skip
        return acting.off_manifold(distances[0], distances[1], self.seed)

    @cached_property
    def _moments(self) -> tuple[Array, Array]:
        rows = self.sae.normalise(self.data.train.h(self.place), self.t).double().numpy()
        return rows.mean(0), np.cov(rows.T)

    # Pages.

    def pages(self, name: str) -> tuple[tuple[LatentPage, ...], dict[str, bytes]]:
        """Of the latents matched to the first attributes: top images, places, what moves."""
        data, pages, pictures = self.data, [], {}
        activity = self._pooled(self.test_codes.abs())
        top = min(_TOP_IMAGES, len(activity))
        purity, order = reading.purity(activity, data.test_labels, top)
        matched: dict[int, list[int]] = {}
        for a in data.edit_attributes(None):
            matched.setdefault(int(self.match.latent[a]), []).append(a)
        ids = data.artifacts.test.batch.image_ids
        for latent in list(matched)[: self.suite.pages]:
            places = order[latent]
            file = f"{name}-latent{latent}.png"
            moves: dict[str, float] = {}
            strips = [data.artifacts.test.batch.pixels[places.tolist()]]
            for a in matched[latent]:
                if a in self._turned_up:
                    images, moved = self._turned_up[a]
                    moves = dict(zip(data.attributes, map(float, moved), strict=True))
                    strips += images.chunk(2)
                    break
            pictures[file] = _strip(strips)
            maps = self.test_codes[places.tolist(), latent].double().numpy().round(4)
            pages.append(
                LatentPage(
                    latent=latent,
                    attributes=tuple(data.attributes[a] for a in matched[latent]),
                    images=tuple(ids[i] for i in places),
                    activity=tuple(map(tuple, maps.tolist())),
                    purity=float(purity[latent]),
                    moves=moves,
                    pictures=file,
                )
            )
        return tuple(pages), pictures


CEILING = "raw_channels"
"""With this dictionary all activations are interchanged, too: the most that any one can cause."""

_WHOLE = 0
"""Stands for the number of latents where all are interchanged."""

_AT_ONE_K = {
    "disentangle": ("disentangle", "cause", "isolate"),
    "ablation": ("ablation",),
    "steering": ("steering", "off_manifold"),
}
"""Which metric chooses the k at which others of the same edits are told."""


def _is_better(name: str, before: Estimate | None, now: Estimate) -> bool:
    if before is None or before.value is None or now.value is None:
        return before is None or before.value is None
    lower = SAE_METRICS[name].better == "lower"
    return now.value < before.value if lower else now.value > before.value


def _strip(rows: Sequence[Tensor]) -> bytes:
    """PNG of rows of images, [n, 3, H, W] each, on white."""
    pixels = [to_8_bits(row.clamp(-1, 1)) for row in rows]
    side = pixels[0].shape[1]
    width = max(len(p) for p in pixels) * side
    sheet = np.full((len(pixels) * side, width, 3), 255, np.uint8)
    for i, row in enumerate(pixels):
        for j, image in enumerate(row):
            sheet[i * side : (i + 1) * side, j * side : (j + 1) * side] = image
    out = io.BytesIO()
    Image.fromarray(sheet).save(out, "PNG", optimize=True)
    return out.getvalue()
