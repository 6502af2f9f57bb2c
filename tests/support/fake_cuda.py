"""A GPU that is not there: tensors on "cuda" have shapes and a place, and no numbers.

What lies on the CPU is real, so data, random numbers and schedules are what they are in a run. What
was ever on the device has no numbers: a question about them is answered with yes, 0 or 0.5. torch
itself refuses what mixes devices, as it would on a machine with a GPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


class FakeCuda(FakeTensorMode):
    """Within the block "cuda" is a device. `to_cpu` counts copies from it to the CPU."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.to_cpu = 0
        self._inside = False  # an operation: what torch does within it is torch's

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation of torch."""
        kwargs = kwargs or {}
        if self._inside:
            return super().dispatch(func, types, args, kwargs)
        leaves = tree_leaves((args, kwargs))
        fake = any(isinstance(leaf, FakeTensor) for leaf in leaves)
        if not fake and not _on_cuda(kwargs.get("device")):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            kind = args[0].dtype
            return True if kind == torch.bool else 0.5 if kind.is_floating_point else 0
        if func is aten.nonzero.default:  # as if everything were other than zero
            x = args[0]
            with self:
                return torch.zeros(x.numel(), x.ndim, dtype=torch.int64, device=x.device)
        if func is aten.index.Tensor:
            with self:
                args = (args[0], _without_masks(args[1]))
        self._inside = True
        try:
            out = super().dispatch(func, types, args, kwargs)
        finally:
            self._inside = False
        if func in (aten._to_copy.default, aten.copy_.default):
            sources = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
            self.to_cpu += sources[-1].device.type == "cuda" and out.device.type == "cpu"
        return out


def _on_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _without_masks(indices: list[Any]) -> list[Any]:
    """Places of everything in the stead of masks, which would say how many there are."""
    found: list[Any] = []
    for index in indices:
        if isinstance(index, Tensor) and index.dtype == torch.bool:
            places = torch.zeros(index.numel(), dtype=torch.int64, device=index.device)
            found += [places] * index.ndim
        else:
            found.append(index)
    return found


def _moved(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
    """`Module.to`, which cannot exchange the tensors of a parameter for fake ones."""
    places = [a for a in (*args, kwargs.get("device")) if isinstance(a, str | torch.device)]
    kinds = [a for a in (*args, kwargs.get("dtype")) if isinstance(a, torch.dtype)]
    known: dict[int, Any] = {}
    for part in module.modules():
        for store in (part._parameters, part._buffers):
            for name, old in list(store.items()):
                if old is None:
                    continue
                if id(old) not in known:
                    new = old.detach()
                    new = new.to(places[0]) if places else new
                    new = new.to(kinds[0]) if kinds and new.is_floating_point() else new
                    if isinstance(old, torch.nn.Parameter):
                        new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
                    known[id(old)] = (new, old)
                store[name] = known[id(old)][0]
    return module


def _leaves_of(node: Any) -> Iterator[Tensor]:
    todo, seen = [node], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        todo += [following for following, _ in node.next_functions]


def _backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
    """The engine wants a real GPU; what it would leave in the parameters is put there."""
    reached = [leaf for leaf in _leaves_of(loss.grad_fn) if leaf.requires_grad]
    assert reached, "a loss without parameters"
    for leaf in reached:
        leaf.grad = torch.zeros_like(leaf)


def _grad(outputs: Tensor, inputs: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    assert any(leaf is inputs for leaf in _leaves_of(outputs.grad_fn))
    return (torch.zeros_like(inputs),)


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """A block in which the device "cuda" can be used on any machine."""
    numpy = Tensor.numpy

    def as_numpy(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(tensor, FakeTensor):
            return numpy(tensor, *args, **kwargs)
        if tensor.device.type != "cpu":
            raise TypeError("can't convert a tensor of a GPU to numpy")
        kind = torch.empty(0, dtype=tensor.dtype).numpy().dtype
        return np.zeros(tuple(tensor.shape), kind)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), FakeCuda() as mode:
        # torch looks at all that it meets, and asks for an address when a network is copied.
        warnings.filterwarnings("ignore", "The .grad attribute")
        warnings.filterwarnings("ignore", "Accessing the data pointer")
        patch.setattr(torch.nn.Module, "to", _moved)
        patch.setattr(Tensor, "backward", _backward)
        patch.setattr(torch.autograd, "grad", _grad)
        patch.setattr(Tensor, "numpy", as_numpy)
        yield mode
