"""One registry for everything that has a name: methods, data sets, backbones, scorers, metrics.

A name is found in three places, in this order: the package's own modules (walked by
`discover`), entry points of installed packages (namespaced as `package/name`), and files given
with `--plugin`. A module that fails to import takes no other down: the reason is kept and told
when a name that might have come from it is asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from casl_bench.core.errors import UsageError, as_line, unknown_name

T = TypeVar("T")

BASELINES = "casl_bench_baselines"
"""The package of what CASL is compared with: `baselines/` of a checkout, under this name only."""


class Registry(Generic[T]):
    """Names to factories.

    Args:
        kind: the word used in messages ("method", "dataset", …).
        entry_point_group: searched in installed packages.
    """

    def __init__(self, kind: str, entry_point_group: str) -> None:
        self.kind = kind
        self.entry_point_group = entry_point_group
        self._factories: dict[str, Callable[..., T]] = {}
        self._broken: dict[str, str] = {}
        self._entry_points_loaded = False
        self._namespace = ""  # of the package whose entry point is being imported

    def register(self, name: str, factory: Callable[..., T]) -> None:
        """Add a factory. Registering the same object twice is harmless, another one an error."""
        if not (isinstance(name, str) and name.strip() and name.isprintable()):
            fault = f"{name!a} cannot be shown as the name of a {self.kind}"
            raise UsageError(fault, hint="rename it")
        name = self._namespace + name
        known = self._factories.get(name)
        if known is not None and _origin(known) != _origin(factory):
            raise UsageError(
                f"{self.kind} '{name}' is registered twice",
                where=f"{_origin(known)} and {_origin(factory)}",
                hint="rename one of them",
            )
        self._factories[name] = factory

    @contextmanager
    def temporarily(self, name: str, factory: Callable[..., T]) -> Iterator[None]:
        """Know a factory under this name within the block, whatever has it else."""
        before = self._factories.get(name)
        self._factories[name] = factory
        try:
            yield
        finally:
            if before is None:
                del self._factories[name]
            else:
                self._factories[name] = before

    def note_broken(self, module: str, error: BaseException) -> None:
        """Remember that a module could not be imported, to be reported when a name is missing."""
        self._broken[module] = as_line(error)

    @property
    def broken(self) -> dict[str, str]:
        """Modules that failed to import → reason."""
        return dict(self._broken)

    def load_entry_points(self) -> None:
        """Import what installed packages offer in this registry's group, once."""
        if self._entry_points_loaded:
            return
        self._entry_points_loaded = True
        for point in entry_points(group=self.entry_point_group):
            package = point.dist.name.replace("-", "_") if point.dist else "unknown"
            # What the package registers by decorator while it is imported is its own, too.
            self._namespace = f"{package}/"
            try:
                self.register(point.name, point.load())
            except Exception as error:  # noqa: BLE001 - a stranger's module may fail in any way
                self.note_broken(f"{package} ({point.value})", error)
            finally:
                self._namespace = ""

    @property
    def registered(self) -> list[str]:
        """Names known so far, sorted; no entry point is imported."""
        return sorted(self._factories)

    def names(self) -> list[str]:
        """All known names, sorted."""
        self.load_entry_points()
        return sorted(self._factories)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def factory(self, name: str) -> Callable[..., T]:
        """The factory of a name. Raises UsageError with the nearest name where there is none."""
        self.load_entry_points()
        if name not in self._factories:
            error = unknown_name(self.kind, name, self._factories)
            if self._broken:
                reasons = "; ".join(f"{m}: {r}" for m, r in sorted(self._broken.items()))
                error = UsageError(error.what, hint=f"{error.hint}; failed to import: {reasons}")
            raise error
        return self._factories[name]

    def create(self, name: str, /, *args: Any, **kwargs: Any) -> T:
        """Make the named thing; a keyword may be called `name`, too."""
        return self.factory(name)(*args, **kwargs)


def _origin(factory: Callable[..., Any]) -> str:
    try:
        return f"{inspect.getsourcefile(factory)}:{factory.__qualname__}"
    except TypeError:
        return repr(factory)


def discover(package: str, *registries: Registry[Any]) -> None:
    """Import every module of a package that does not start with `_`; failures are remembered."""
    try:
        root = importlib.import_module(package)
    except ImportError as error:
        for registry in registries:
            registry.note_broken(package, error)
        return
    for module in pkgutil.iter_modules(root.__path__):
        if module.name.startswith("_"):
            continue
        name = f"{package}.{module.name}"
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001
            for registry in registries:
                registry.note_broken(name, error)


def baselines_folder() -> Path:
    """Where the baselines are: beside this package, in a checkout or installed."""
    root = Path(__file__).parents[2]
    # Installed, a neighbour called `baselines` is another package's.
    is_checkout = (root / "pyproject.toml").is_file() and not (root / BASELINES).is_dir()
    return root / ("baselines" if is_checkout else BASELINES)


def import_baselines() -> str:
    """Make `BASELINES` importable, whatever is on `sys.path`; returns that name."""
    path = baselines_folder() / "__init__.py"
    if BASELINES not in sys.modules and path.is_file():
        _import_file(BASELINES, path)
    return BASELINES


def _import_file(name: str, path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError("not a Python file", where=str(path), hint="give a file ending in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise


def load_plugin(path: Path) -> None:
    """Import a Python file given by the user, once; UsageError where that fails."""
    path = path.resolve()
    if not path.is_file():
        raise UsageError("no such plugin file", where=str(path), hint="give a Python file")
    name = f"casl_bench_plugin_{path.stem}_{abs(hash(str(path))):x}"
    if name in sys.modules:
        return
    try:
        _import_file(name, path)
    except (KeyboardInterrupt, UsageError):
        raise
    except BaseException as error:
        raise UsageError(f"plugin fails to import: {as_line(error)}", where=str(path)) from error
