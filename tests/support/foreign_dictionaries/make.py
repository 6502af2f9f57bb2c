"""Makes the golden files beside this one: small dictionaries saved by other packages' own code.

    python -m venv golden && golden/bin/pip install sae-lens==6.54.12 eai-sparsify==1.3.3 torch
    golden/bin/pip install --no-deps dictionary-learning==0.1.0 && golden/bin/pip install einops
    golden/bin/python tests/support/foreign_dictionaries/make.py

These packages ask for other versions of what the tests use, so they are no test dependencies. Every
folder holds what the package wrote and `expected.safetensors`: vectors x [n, d_in] with the code z
[n, d_sae] and the reconstruction x_hat that the package makes of them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import types
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
D_IN, D_SAE, K = 6, 16, 3
X = torch.randn(20, D_IN, generator=torch.Generator().manual_seed(1))


def filled(module: torch.nn.Module, scale: float = 0.7) -> None:
    """Random weights, biases that are not 0, thresholds that bind."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if not value.is_floating_point():
                continue
            value.copy_(torch.randn(value.shape, generator=generator) * scale)
            if "threshold" in name:
                value.copy_(value.abs() + 0.2)


def expect(folder: Path, z: torch.Tensor, x_hat: torch.Tensor) -> None:
    tensors = {"x": X, "z": z.detach().contiguous(), "x_hat": x_hat.detach().contiguous()}
    save_file(tensors, folder / "expected.safetensors")


def sae_lens() -> None:
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    kinds = {
        "standard": StandardSAE(StandardSAEConfig(D_IN, D_SAE)),
        "standard_plain_input": StandardSAE(
            StandardSAEConfig(D_IN, D_SAE, apply_b_dec_to_input=False)
        ),
        "topk": TopKSAE(TopKSAEConfig(D_IN, D_SAE, k=K)),
        "topk_rescaled": TopKSAE(
            TopKSAEConfig(D_IN, D_SAE, k=K, rescale_acts_by_decoder_norm=True)
        ),
        "jumprelu": JumpReLUSAE(JumpReLUSAEConfig(D_IN, D_SAE)),
    }
    for name, sae in kinds.items():
        folder = HERE / f"sae_lens_{name}"
        filled(sae)
        sae.save_model(folder)
        z = sae.encode(X)
        expect(folder, z.to_dense() if z.is_sparse else z, sae.decode(z))


def sparsify() -> None:
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # its decoder otherwise needs a GPU
    from sparsify import SparseCoder, SparseCoderConfig

    for activation, k in (("topk", K), ("groupmax", 4)):
        folder = HERE / f"sparsify_{activation}"
        sae = SparseCoder(D_IN, SparseCoderConfig(num_latents=D_SAE, k=k, activation=activation))
        filled(sae)
        sae.save_to_disk(folder)
        found = sae.encode(X)
        z = torch.zeros(len(X), D_SAE).scatter(1, found.top_indices, found.top_acts)
        expect(folder, z, sae.decode(found.top_acts, found.top_indices))


def dictionary_learning() -> None:
    # Its package imports a language-model library, which no dictionary needs.
    spec = importlib.util.find_spec("dictionary_learning")
    assert spec is not None and spec.submodule_search_locations is not None
    package = types.ModuleType("dictionary_learning")
    package.__path__ = list(spec.submodule_search_locations)
    trainers = types.ModuleType("dictionary_learning.trainers")
    trainers.__path__ = [f"{package.__path__[0]}/trainers"]
    sys.modules |= {"dictionary_learning": package, "dictionary_learning.trainers": trainers}
    from dictionary_learning.dictionary import AutoEncoder, JumpReluAutoEncoder
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    kinds = {
        "AutoEncoder": AutoEncoder(D_IN, D_SAE),
        "AutoEncoderTopK": AutoEncoderTopK(D_IN, D_SAE, K),
        "BatchTopKSAE": BatchTopKSAE(D_IN, D_SAE, K),
        "MatryoshkaBatchTopKSAE": MatryoshkaBatchTopKSAE(D_IN, D_SAE, K, [4, 12]),
        "JumpReluAutoEncoder": JumpReluAutoEncoder(D_IN, D_SAE),
    }
    for name, sae in kinds.items():
        folder = HERE / f"dictionary_learning_{name}"
        folder.mkdir(exist_ok=True)
        filled(sae)
        torch.save(sae.state_dict(), folder / "ae.pt")
        (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": name, "k": K}}))
        if name == "AutoEncoder":
            sae = AutoEncoder.from_pretrained(folder / "ae.pt")  # its loader rescales latents
        z = sae.encode(X)
        expect(folder, z, sae.decode(z))


if __name__ == "__main__":
    for make in (sae_lens, sparsify, dictionary_learning):
        make()
