"""Settings of all tests. Fixtures of one area live beside its tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from casl_bench.cache.store import CACHE_VARIABLE
from casl_bench.core.registry import import_baselines
from tests.support import no_network

if TYPE_CHECKING:
    from torch import Tensor

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests beside each other share the cores: one thread each, and for what they start.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
# What --jobs is by default: a command of a test runs in one process unless it asks for more.
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")

# A shell starts what it puts into the background deaf to SIGINT, and children inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import_baselines()

# Tests reach this machine alone, also those of what asks a Hub or an address.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


no_network.block()
_children = str(Path(no_network.__file__).with_name("children"))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [_children, *filter(None, [os.environ.get("PYTHONPATH")])]
)

# A red build must mean something: examples are drawn the same way every time, and a slow machine
# is no fault.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="module")
def own_entrants() -> Iterator[None]:
    """What a test file makes known by name is forgotten after it, and may be made known again."""
    from casl_bench.domains.dataset import DATASETS
    from casl_bench.domains.domain import DOMAINS
    from casl_bench.methods.method import METHODS
    from casl_bench.runs.names import load_registries

    load_registries()
    with pytest.MonkeyPatch.context() as patch:
        for registry in (METHODS, DATASETS, DOMAINS):
            patch.setattr(registry, "_factories", dict(registry._factories))
        yield
    # A plugin is imported once, and registers as it is imported.
    for name in [n for n in sys.modules if n.startswith("casl_bench_plugin_")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def toy_registered(own_entrants: None) -> None:
    """The toy domain is known by name, in this test file."""
    from casl_bench.conformance.toy_domain import register_toy_domain

    register_toy_domain()


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test touches the user's cache; tests that run the same share what they make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def nobody_elsewhere_is_asked() -> Iterator[None]:
    """A library that is refused may go on without a word, so what it asked for is looked at."""
    no_network.REFUSED.clear()
    yield
    assert not no_network.REFUSED, f"asked for {no_network.REFUSED}"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own: nothing is found in it, and nothing of it is found elsewhere."""
    cache = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    return cache


@pytest.fixture(autouse=True)
def what_patches_code_shares_nothing(request: pytest.FixtureRequest) -> None:
    """Other code makes other things, which no key can tell of code that was patched in memory."""
    if "monkeypatch" in request.fixturenames:
        request.getfixturevalue("own_cache")


@pytest.fixture(scope="session")
def as_published() -> Callable[..., dict[str, Tensor]]:
    """A U-Net's state dict under the names of its family's authors, packed as they do.

    The inverse of `ddpm_state` and `adm_state`, made by asking them which names they look for.
    """
    import torch

    from casl_bench.models.weights import UnfitWeightsError
    from casl_bench.photos.checkpoints.formats import adm_state, ddpm_state

    class Asked(dict[str, Any]):
        """Holds nothing and remembers what was looked for."""

        def get(self, key: str, default: Any = None) -> None:
            names.append(key)

    names: list[str] = []

    def rename(
        family: str, own: Mapping[str, Tensor], head_channels: int | None = None
    ) -> dict[str, Tensor]:
        names.clear()
        with pytest.raises(UnfitWeightsError):
            if family == "ddpm":
                ddpm_state(Asked(), own, "")
            else:
                adm_state(Asked(), own, "", head_channels or 1)
        parts: dict[str, list[Tensor]] = {}
        for name, tensor in zip(names, own.values(), strict=True):
            parts.setdefault(name, []).append(tensor)
        published = {}
        for name, tensors in parts.items():
            tensor = tensors[0]
            if len(tensors) == 3:
                heads = [x.unflatten(0, (-1, head_channels)) for x in tensors]
                tensor = torch.stack(heads, 1).flatten(0, 2)
            if ".attn" in name and tensor.ndim == 2:
                tensor = tensor[..., None, None]
            elif (".qkv." in name or ".proj_out." in name) and tensor.ndim == 2:
                tensor = tensor[..., None]
            published[name] = tensor.contiguous()
        return published

    return rename
