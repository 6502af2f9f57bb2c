"""The state of an unfinished training, whole in one file: weights, optimiser, random numbers."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from casl_bench.core.content_hash import hash_json, hash_tensors
from casl_bench.core.files import write_bytes
from casl_bench.sae.sparse_autoencoder import SparseAutoencoder


def save_checkpoint(
    path: Path,
    key: str,
    sae: SparseAutoencoder,
    optimiser: torch.optim.Adam,
    silent_for: Tensor,
    generator: torch.Generator,
    done: int,
) -> None:
    """Write the state after `done` steps of the training identified by `key`."""
    tensors = {"silent_for": silent_for, "generator": generator.get_state()}
    for name, parameter in sae.named_parameters():
        tensors[name] = parameter.detach()
        for slot, value in optimiser.state[parameter].items():
            tensors[f"adam.{slot}.{name}"] = value
    contiguous = {name: t.cpu().contiguous() for name, t in tensors.items()}
    metadata = {"key": key, "done": str(done), "sha256": _hash_of(contiguous, done)}
    write_bytes(path, save(contiguous, metadata=metadata))


def load_checkpoint(
    path: Path,
    key: str,
    sae: SparseAutoencoder,
    optimiser: torch.optim.Adam,
    silent_for: Tensor,
    generator: torch.Generator,
) -> int:
    """Put the stored state into these objects.

    Returns:
        Steps done; 0, with nothing changed, where there is no undamaged checkpoint of this training
        (a lost checkpoint costs time, never another result).
    """
    if not path.is_file():
        return 0
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
            if metadata.get("key") != key:
                return 0
            names = list(f.keys())
            tensors = {name: f.get_tensor(name) for name in names}
        done = int(metadata["done"])
        if metadata["sha256"] != _hash_of(tensors, done):
            return 0
    except (OSError, ValueError, KeyError, SafetensorError):
        return 0
    generator.set_state(tensors["generator"])
    silent_for.copy_(tensors["silent_for"])
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            parameter.copy_(tensors[name])
            slots = ("step", "exp_avg", "exp_avg_sq")
            optimiser.state[parameter] = {s: tensors[f"adam.{s}.{name}"] for s in slots}
    return done


def _hash_of(tensors: dict[str, Tensor], done: int) -> str:
    return hash_json([hash_tensors(tensors), done])
