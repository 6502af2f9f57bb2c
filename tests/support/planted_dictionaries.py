"""Images whose activations are known factors along directions, and dictionaries of them.

Four factors, each at half of the positions, over sparse nuisance directions. A dictionary here is
its weights and a function that encodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from casl_bench.metrics.dictionaries import acting, coding, reading
from casl_bench.metrics.dictionaries.acting import Edits
from casl_bench.metrics.dictionaries.reading import Match
from casl_bench.metrics.edit_scores import Array
from casl_bench.metrics.metric import Estimate

A, P, C, NUISANCES = 4, 16, 48, 40
N_TRAIN, N_TEST, PAIRS = 120, 80, 40


@dataclass(frozen=True)
class Planted:
    """Activations [n, P, C] = factors [n, A] placed on masks along directions, plus nuisances."""

    directions: Array  # [A + NUISANCES, C], unit rows
    masks: Array  # [A, P]
    labels: Array  # [n, A] bool
    nuisance: Array  # [n, P, NUISANCES] >= 0

    def h(self, labels: Array | None = None) -> Array:
        labels = self.labels if labels is None else labels
        factors = labels[:, None, :] * self.masks.T[None]
        found: Array = np.concatenate([factors, self.nuisance], 2) @ self.directions
        return found


def planted(n: int, seed: int) -> Planted:
    world, rng = np.random.default_rng(0), np.random.default_rng(seed)
    directions = world.normal(size=(A + NUISANCES, C))
    # Factors share much of their direction, as in superposition: reading one means undoing others.
    directions[:A] += 1.5 * world.normal(size=C)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    masks = np.zeros((A, P))
    for a in range(A):
        masks[a, np.arange(a * P // A, a * P // A + P // 2) % P] = 0.5
    labels = rng.random((n, A)) < 0.5
    nuisance = (rng.random((n, P, NUISANCES)) < 0.1) * rng.random((n, P, NUISANCES))
    return Planted(directions, masks, labels, nuisance)


@dataclass(frozen=True)
class Sae:
    """encode: rows [m, C] → codes [m, F]; W_dec [F, C]."""

    encode: Callable[[Array], Array]
    W_dec: Array
    b_dec: Array | float = 0.0

    def codes(self, h: Array) -> Array:
        """[n, P, C] → [n, F, P]."""
        return self.encode(h.reshape(-1, C)).reshape(*h.shape[:2], -1).transpose(0, 2, 1)

    def decode(self, z: Array) -> Array:
        """[n, F, P] → [n, P, C]."""
        return z.transpose(0, 2, 1) @ self.W_dec + self.b_dec


def oracle(world: Planted) -> Sae:
    """Reads every direction without the others, nuisances included."""
    inverse = np.linalg.pinv(world.directions)
    return Sae(lambda h: h @ inverse, world.directions)


def untrained(features: int = 128, k: int = 8) -> Sae:
    """Random directions, of which each vector keeps the k best."""
    W = np.random.default_rng(7).normal(size=(features, C))
    W /= np.linalg.norm(W, axis=1, keepdims=True)

    def encode(h: Array) -> Array:
        pre = np.maximum(h @ W.T, 0)
        least = np.sort(pre, axis=1)[:, -k][:, None]
        return pre * (pre >= np.maximum(least, 1e-12))

    return Sae(encode, W)


def random_orthogonal() -> Sae:
    Q, _ = np.linalg.qr(np.random.default_rng(8).normal(size=(C, C)))
    return Sae(lambda h: h @ Q, Q.T)


def merged(sae: Sae, share: float) -> Sae:
    """Each of the first latents gives a share of itself to the next one: factors run together."""
    F = len(sae.W_dec)
    mix = np.eye(F)
    for a in range(A):
        mix[a, a] -= share / 2
        mix[(a + 1) % A, a] += share / 2
    return replace(sae, encode=lambda h: sae.encode(h) @ mix)


def shuffled_decoder(sae: Sae, share: float) -> Sae:
    """A share of the directions changed for one another."""
    count = round(share * len(sae.W_dec))
    order = np.arange(len(sae.W_dec))
    order[:count] = np.roll(order[:count], 1)
    return replace(sae, W_dec=sae.W_dec[order])


TRAIN, TEST = planted(N_TRAIN, 1), planted(N_TEST, 2)


class Measured:
    """The metrics of a dictionary on planted activations."""

    def __init__(self, sae: Sae) -> None:
        self.sae = sae
        self.train = sae.codes(TRAIN.h())
        self.test = sae.codes(TEST.h())
        pooled = self.train.mean(2)
        self.scores = np.stack([reading.contrast(pooled, y) for y in TRAIN.labels.T])
        self.match = Match.of(self.scores)
        few = replace(TEST, labels=TEST.labels[:PAIRS], nuisance=TEST.nuisance[:PAIRS])
        sides = []
        for value in (False, True):
            own = []
            for a in range(A):
                labels = few.labels.copy()
                labels[:, a] = value
                own.append(few.h(labels))
            sides.append(own)
        self.h_off, self.h_on = (np.stack(s) for s in sides)  # [A, m, P, C]
        self.on = np.stack([sae.codes(h) for h in self.h_on])
        self.off = np.stack([sae.codes(h) for h in self.h_off])
        self.raw = self.on.mean(3) - self.off.mean(3)
        self.change = reading.standardised(self.raw, self.test.mean(2).std(0))

    def mean(self, of: Callable[[int], Estimate]) -> float:
        values = [of(a).value for a in range(A)]
        assert all(v is not None for v in values)
        return float(np.mean([v for v in values if v is not None]))

    def pair_score(self) -> float:
        return self.mean(lambda a: reading.pair_score(self.change, self.match, a, 0))

    def pair_direction(self) -> float:
        return self.mean(lambda a: reading.pair_direction(self.change, self.match, a, 0))

    def pair_share(self) -> float:
        return self.mean(lambda a: reading.pair_share(self.change, self.match, a, 0))

    def absorption(self) -> float:
        moved = (self.h_on - self.h_off).mean(2)
        return self.mean(
            lambda a: reading.absorption(self.raw[a], self.sae.W_dec, moved[a], self.match, a, 0)
        )

    def localisation(self) -> float:
        return self.mean(
            lambda a: reading.localisation(
                np.abs(self.on[a, :, self.match.latent[a]]),
                np.repeat((TEST.masks[a] > 0)[None].astype(float), PAIRS, 0),
                0,
            )
        )

    def probe(self, ks: tuple[int, ...] = (1, 2, 4)) -> float:
        def area(a: int) -> Estimate:
            train, test = self.train.mean(2), self.test.mean(2)
            order = reading.best_features(self.scores[a], max(ks))
            right = {
                k: reading.probe_right(
                    train[:, order[:k]], TRAIN.labels[:, a], test[:, order[:k]], TEST.labels[:, a]
                )
                for k in ks
            }
            return reading.area_over_k(right, 0)

        return self.mean(area)

    def explained_variance(self) -> float:
        found = coding.explained_variance(TEST.h(), self.sae.decode(self.test), 0)
        assert found.value is not None
        return found.value

    def interchange(self) -> tuple[float, float]:
        """Cause and isolate of the k = 1 latents, read by the exact read-out of the factors."""
        inverse = np.linalg.pinv(TEST.directions)[:, :A]

        def decisions(h: Array) -> Array:
            found: Array = (h @ inverse).mean(1) > 0.125  # half of 0.5 at half of the positions
            return found

        causes, isolates = [], []
        for a in range(A):
            j, b = self.match.latent[a], (a + 1) % A
            for source, is_cause in ((a, True), (b, False)):
                # From the image without the source's factor to that with it, one latent of a alone.
                base, z = self.h_off[source], self.off[source]
                dz = self.on[source][:, j] - z[:, j]
                edited = base + dz[:, :, None] * self.sae.W_dec[j]
                after = decisions(edited)
                if is_cause:
                    causes.append((after[:, a] == decisions(self.h_on[a])[:, a]).mean())
                before = np.delete(decisions(base), a, 1)
                isolates.append((np.delete(after, a, 1) == before).mean())
        return float(np.mean(causes)), float(np.mean(isolates))

    def _read(self, h: Array) -> Array:
        """[m, A] how much of each factor is in activations [m, P, C], 1 as it is planted."""
        found: Array = (h @ np.linalg.pinv(TEST.directions)[:, :A]).mean(1) / 0.25
        return found

    def ablation(self) -> float:
        """The k = 1 latent set to 0 where its factor is on."""

        def share(a: int) -> Estimate:
            j = self.match.latent[a]
            edited = self.h_on[a] - self.on[a][:, j][:, :, None] * self.sae.W_dec[j]
            moved = self._read(edited) - self._read(self.h_on[a])
            others = np.abs(np.delete(moved, a, 1)).mean(1)
            return acting.target_share(-moved[:, a], others, 0)

        return self.mean(share)

    def steering(self) -> float:
        """The k = 1 latent moved by the difference of class means, where its factor is off."""

        def precision(a: int) -> Estimate:
            j, on = self.match.latent[a], TRAIN.labels[:, a]
            shift = self.train[on, j].mean(0) - self.train[~on, j].mean(0)  # [P]
            base = self._read(self.h_off[a])
            moved = np.stack(
                [
                    self._read(self.h_off[a] + s * shift[None, :, None] * self.sae.W_dec[j]) - base
                    for s in (0.25, 0.5, 1, 2, 4)
                ]
            )
            edits = Edits(
                moved[..., a],
                np.abs(np.delete(moved, a, 2)).mean(2),
                base[None, :, a] + moved[..., a] > 0.5,
            )
            return acting.precision_at_flips(edits, 0)

        return self.mean(precision)

    def monosemanticity(self) -> float:
        """Of the matched latents' top images, likeness being the share of equal labels."""
        labels = TEST.labels * 2.0 - 1
        similarity = labels @ labels.T / A
        activity = np.maximum(self.test.mean(2), 0)[:, self.match.latent]
        found = reading.monosemanticity(activity, similarity, 0)
        assert found.value is not None
        return found.value
