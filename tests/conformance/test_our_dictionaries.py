"""Every kind of dictionary that we ship keeps the rules that we ask of a stranger's."""

import pytest
import torch

from casl_bench.conformance import CheckFailed
from casl_bench.conformance.check_sae import SaeTrial, sae_checks
from casl_bench.sae.dictionaries.top_k import TopK
from casl_bench.sae.dictionary import SAES, SaeInfo, dictionary_class, discover_dictionaries

discover_dictionaries()
OURS = [name for name in SAES if "/" not in name]
CHECKS = [
    pytest.param(check, id=f"{name}: {rule}")
    for name in OURS
    for rule, check in sae_checks(dictionary_class(name))
]


def test_the_dictionaries_of_this_package_are_found():
    trained = {"top_k", "batch_top_k", "relu", "jump_relu", "matryoshka", "concept_slots"}
    controls = {"raw_channels", "pca", "random_orthogonal", "untrained", "oracle"}
    assert trained | controls <= set(OURS)
    assert {n for n in OURS if dictionary_class(n).info.control} == controls
    assert not SAES.broken


@pytest.mark.parametrize("check", CHECKS)
def test_dictionary(check):
    check()


class Negative(TopK):
    info = SaeInfo(name="negative", title="t", source="s", version=1)

    def activate(self, pre):
        return pre


class Careless(TopK):
    info = SaeInfo(name="careless", title="t", source="s", version=1)

    def fit(self, activations):
        with torch.no_grad():
            self.b_enc.copy_(torch.rand(self.d_sae))


class Company(TopK):
    info = SaeInfo(name="company", title="t", source="s", version=1)

    def activate(self, pre):
        return torch.relu(pre - pre.mean(0))


class Bent(TopK):
    info = SaeInfo(name="bent", title="t", source="s", version=1)

    def decode(self, z):
        return super().decode(z.sqrt())


class Greedy(TopK):
    info = SaeInfo(name="greedy", title="t", source="s", version=1, needs="pairs")


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Negative, "codes are not negative unless it says so"),
        (Careless, "the same data and seed give the same dictionary, and global random state"),
        (Company, "a vector's code does not depend on its batch"),
        (Bent, "what a latent adds is its direction: the decoder is linear in the code"),
        (Greedy, "its info is complete"),
        (Greedy, "without what it needs it refuses to be fitted, and with less it needs no more"),
    ],
)
def test_a_planted_fault_is_found(kind, rule):
    (check,) = (c for name, c in sae_checks(kind) if name.startswith(rule))
    with pytest.raises(CheckFailed):
        check()


def test_the_oracle_reads_planted_factors_and_nothing_else():
    trial = SaeTrial(dictionary_class("oracle"))
    sae, truth = trial.sae, trial.store.directions
    assert torch.allclose((sae.W_dec * truth).sum(1), torch.ones(3), atol=1e-3)
    # The code of a factor's direction is that factor's latent alone.
    moved = sae.encode(truth) - sae.encode(torch.zeros(3, 12))
    assert torch.allclose(moved, torch.eye(3), atol=0.05)


def test_concept_slots_bind_labels():
    trial = SaeTrial(dictionary_class("concept_slots"))
    sae = trial.fit(steps=400)
    codes = sae.encode(trial.rows).view(len(trial.store), 4, -1).mean(1)[:, :3]
    on, off = (
        torch.stack([codes[trial.store.labels[:, a] == v, a].mean() for a in range(3)])
        for v in (True, False)
    )
    assert bool((on > off).all())
