"""What must hold before any work: a torch that fits its torchvision, a device that exists."""

from __future__ import annotations

from importlib import metadata

from casl_bench.core.errors import UsageError


def check_torch() -> None:
    """Import torch and torchvision, whose builds must fit each other.

    Raises:
        UsageError: where they do not; the import itself fails with an error that names neither.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        # A mismatched pair says "operator torchvision::nms does not exist", or, built for
        # another C++ interface, "undefined symbol".
        pair = " and ".join(f"{name} {_version(name)}" for name in ("torch", "torchvision"))
        if any(sign in str(error) for sign in ("torchvision::", "undefined symbol")):
            raise UsageError(
                f"{pair} do not fit together",
                hint="install both from the same index with matching builds "
                "(pip install --force-reinstall torch torchvision)",
            ) from error
        raise UsageError(
            f"{pair} cannot be imported: {error}", hint="install torch and torchvision anew"
        ) from error


def resolve_device(name: str) -> str:
    """A device that exists, with its number, from "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        UsageError: if torch cannot use it on this machine.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"unknown device '{name}'", hint="use cpu, cuda, cuda:1 … or mps"
        ) from error
    if device.type == "cpu":
        return "cpu"
    if device.type == "cuda" and torch.cuda.is_available():
        index = device.index or 0
        if index < torch.cuda.device_count():
            return f"cuda:{index}"
    if device.type == "mps" and torch.backends.mps.is_available():
        return "mps"
    raise UsageError(f"device '{name}' is not available here", hint="use --device cpu")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"
