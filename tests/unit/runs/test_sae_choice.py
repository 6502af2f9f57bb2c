"""Which dictionary a run uses: in its key and folder, trained once, told in its records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from casl_bench.conformance.toy_domain import register_toy_domain, toy_domain
from casl_bench.core.errors import InputError
from casl_bench.runs.artifacts import Artifacts, SaeSpec
from casl_bench.runs.cell import method_fields
from casl_bench.runs.names import list_text, resolve_sae
from casl_bench.runs.progress import SilentProgress
from casl_bench.runs.run_lock import claim_run_folder, config_of_run
from casl_bench.runs.suites import RunConfig, default_out
from casl_bench.sae.dictionaries.top_k import TopK
from casl_bench.sae.dictionary import Activations
from tests.support.tiny_suite import tiny_suite

pytestmark = pytest.mark.usefixtures("own_entrants")


def config(tmp_path: Path, **changes: object) -> RunConfig:
    register_toy_domain()
    return RunConfig.model_validate(
        {
            "methods": ("casl",), "datasets": ("toy_shapes",), "concepts": None,
            "suite": tiny_suite(), "seed": 0, "device": "cpu", "out": tmp_path / "run",
            "cache": tmp_path / "cache", **changes,
        }
    )  # fmt: skip


def artifacts(tmp_path: Path, **changes: object) -> Artifacts:
    return Artifacts(toy_domain(), config(tmp_path, **changes), SilentProgress())


def test_another_dictionary_is_another_run(tmp_path: Path) -> None:
    plain, other = config(tmp_path), config(tmp_path, sae="jump_relu")
    assert "sae" not in plain.key() and other.key()["sae"] == ["jump_relu", None]
    own = default_out(("toy",), "tiny", 0, sae="jump_relu")
    assert own == Path("runs/toy-tiny-seed0-jump_relu")
    with claim_run_folder(other):
        assert config_of_run(other.out, ("toy_shapes",), ("casl",)).sae == "jump_relu"


def test_a_dictionary_is_trained_once_for_all_that_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[int] = []
    fit = TopK.fit

    def counted(self: TopK, activations: Activations) -> None:
        fits.append(1)
        fit(self, activations)

    monkeypatch.setattr(TopK, "fit", counted)
    first = artifacts(tmp_path)
    assert first.get() is first.get()
    again = artifacts(tmp_path).dictionary(SaeSpec("top_k"))
    assert again.content_hash == first.get().content_hash and len(fits) == 1
    artifacts(tmp_path).dictionary(SaeSpec("top_k", k=8))
    artifacts(tmp_path).dictionary(SaeSpec("top_k", seed=1))
    assert len(fits) == 3
    keys = {first.sae_key(SaeSpec(name, site=site)).hash
            for name in ("top_k", "relu") for site in ("mid", "up_0")}  # fmt: skip
    assert len(keys) == 4


def test_methods_get_codes_that_are_not_negative(tmp_path: Path) -> None:
    own = artifacts(tmp_path, sae="raw_channels")
    signed, split = own.dictionary(own.sae_spec), own.get()
    store = own.train.trajectories
    assert store is not None
    h = store.h(1)
    t = store.timesteps[1]
    assert float(signed.encode(h, t).min()) < 0 <= float(split.encode(h, t).min())
    assert split.d_sae == 2 * signed.d_sae
    assert torch.allclose(split.reconstruct(h, t), h, atol=1e-5)
    dz = torch.rand(2, split.d_sae, 4, 4)
    moved = split.decode(dz, t) - split.decode(dz * 0, t)
    assert torch.allclose(split.decode_delta(dz, t), moved, atol=1e-4)


def test_a_folder_is_read_in_place_and_its_weights_are_in_the_key(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    weights = {"W_enc": torch.eye(32), "b_enc": torch.zeros(32), "W_dec": torch.eye(32)}
    save_file(weights | {"b_dec": torch.zeros(32)}, folder / "mine.safetensors")
    name, digest = resolve_sae(f"{folder}/")
    assert name == str(folder) and digest is not None
    own = artifacts(tmp_path, sae=name, sae_hash=digest)
    assert own.config.key()["sae"] == [name, digest]
    assert own.get().d_sae == 32


def test_a_dictionary_that_was_given_labels_makes_its_methods_supervised(tmp_path: Path) -> None:
    told = {sae: method_fields("casl", config(tmp_path, sae=sae))["supervision"]
            for sae in ("top_k", "concept_slots", "oracle")}  # fmt: skip
    assert told == {"top_k": "text", "concept_slots": "labels", "oracle": "labels"}
    asyrp = method_fields("asyrp", config(tmp_path, sae="concept_slots"))
    assert asyrp["supervision"] == "text"  # it uses no dictionary


def test_the_oracle_learns_from_flipped_training_images(tmp_path: Path) -> None:
    sae = artifacts(tmp_path).dictionary(SaeSpec("oracle"))
    assert sae.d_sae == 3  # bright, red, striped
    assert torch.allclose(sae.sae.W_dec.norm(dim=1), torch.ones(3), atol=1e-4)


def test_flipped_images_are_in_order_of_attributes(tmp_path: Path) -> None:
    own = artifacts(tmp_path)
    flips = own.flipped("test", 3)
    dataset = own.domain.dataset
    ids = own.test.batch.image_ids[:3]
    for a, attribute in enumerate(flips.attributes):
        expected = dataset.oracle(ids, attribute)  # type: ignore[attr-defined]
        assert torch.equal(flips.flipped.batch.pixels[flips.rows(a)], expected)
    assert len(flips.flipped.batch) == 9 and flips.flipped.trajectories is not None


class Photographs:
    """The toy pictures, but nobody knows how they would look otherwise."""

    def __init__(self) -> None:
        known = toy_domain().dataset
        self.card, self.load = known.card, known.load


def test_a_data_set_of_unknown_factors_has_no_flips(tmp_path: Path) -> None:
    domain = replace(toy_domain(), dataset=Photographs())
    own = Artifacts(domain, config(tmp_path), SilentProgress())
    with pytest.raises(InputError, match="factors are unknown"):
        own.flipped("test", 3)


def test_the_list_names_them() -> None:
    shown = list_text()
    assert "Dictionaries (--sae)" in shown and "concept_slots" in shown and "matryoshka" in shown
