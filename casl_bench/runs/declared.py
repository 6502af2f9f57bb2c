"""Names of methods, data sets and concepts, read from source code: no module is imported.

A mistyped name is refused within a second that way, since importing a method imports torch. Where
source does not say all names (a computed one, a package of another's), nothing is refused here, and
`runs.names` decides after the imports.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from casl_bench.core.errors import unknown_name
from casl_bench.core.files import read_whole
from casl_bench.core.registry import baselines_folder

_PACKAGES = ("casl_bench.methods", "casl_bench.domains.rendering", "casl_bench.photos")


@dataclass
class Declared:
    """What source files declare; None stands for a name that is no literal.

    `datasets` are by name the names of their concepts, None where they are no literals.
    """

    methods: set[str | None] = field(default_factory=set)
    datasets: dict[str | None, set[str] | None] = field(default_factory=dict)

    def add(self, other: Declared) -> None:
        """Take over what another file declares."""
        self.methods |= other.methods
        self.datasets |= other.datasets


def _read(path: Path) -> Declared:
    try:
        nodes = [*ast.walk(ast.parse(read_whole(path)))]
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return Declared()  # its import fails, and says why
    methods = _registered(nodes, "METHODS")
    for node in nodes:
        if isinstance(node, ast.ClassDef) and "register_method" in map(_name, node.decorator_list):
            infos = _calls(ast.walk(node), "MethodInfo", "control_info")
            named = [k.value for c in infos for k in c.keywords if k.arg == "name"]
            named += [a for c in infos for a in c.args[:1]]
            methods.add(_literal(named[0]) if named else None)
    datasets = _registered(nodes, "DATASETS")
    return Declared(methods, {name: _concepts(path, nodes, name) for name in datasets})


def _concepts(path: Path, nodes: Sequence[ast.AST], dataset: str | None) -> set[str] | None:
    # One data set may ship another's.
    ships = {_literal(call.args[0]) for call in _calls(nodes, "shipped_concepts") if call.args}
    name = dataset if dataset in ships or len(ships) != 1 else ships.pop()
    shipped = path.parent / "concepts" / f"{name}.toml"
    if shipped.is_file():
        rows = tomllib.loads(shipped.read_text(encoding="utf-8"))
        return {row["name"] for row in rows["concept"]}
    names = {_literal(call.args[0]) for call in _calls(nodes, "Concept") if call.args}
    return {n for n in names if n is not None} if names and None not in names else None


def _registered(nodes: Sequence[ast.AST], registry: str) -> set[str | None]:
    if any(isinstance(n, ast.AnnAssign) and _name(n.target) == registry for n in nodes):
        return set()  # the file that makes the registry: its decorator has the name of others
    return {
        _literal(call.args[0]) if call.args else None
        for call in _calls(nodes, "register")
        if isinstance(call.func, ast.Attribute) and _name(call.func.value) == registry
    }


def _calls(nodes: Iterable[ast.AST], *names: str) -> list[ast.Call]:
    return [n for n in nodes if isinstance(n, ast.Call) and _name(n.func) in names]


def _name(node: ast.AST) -> str:
    """`register` of `register` and of `METHODS.register`."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _literal(node: ast.AST) -> str | None:
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) else None


def declared(plugins: Sequence[Path] = ()) -> Declared:
    """What this package, the baselines and these files declare."""
    folders = [baselines_folder()]
    for package in _PACKAGES:
        spec = find_spec(package)
        folders += map(Path, (spec.submodule_search_locations if spec else None) or ())
    found = Declared()
    for path in (path for folder in folders for path in sorted(folder.glob("*.py"))):
        found.add(_read(path))
    for path in plugins:
        own = _read(path)
        if not own.methods and not own.datasets:  # such as one that calls a function of another
            own = Declared({None}, {None: None})
        found.add(own)
    # What a notebook or a test has registered in this process.
    found.methods |= _registered_here("casl_bench.methods.method", "METHODS")
    here = _registered_here("casl_bench.domains.dataset", "DATASETS")
    found.datasets = {**{name: None for name in here}, **found.datasets}
    # An installed package may register more than its entry points name.
    if entry_points(group="casl_bench.methods"):
        found.methods.add(None)
    if entry_points(group="casl_bench.datasets"):
        found.datasets[None] = None
    return found


def _registered_here(module: str, registry: str) -> set[str]:
    """Names that a registry has already; none where its module was never imported."""
    loaded = sys.modules.get(module)
    return set() if loaded is None else set(getattr(loaded, registry).registered)


def check_names(
    methods: Sequence[str],
    datasets: Sequence[str],
    concepts: Sequence[str],
    plugins: Sequence[Path] = (),
) -> None:
    """Refuse, with a UsageError, a name that nothing declares; no module is imported."""
    known = declared(plugins)
    _refuse_unknown("method", methods, known.methods)
    _refuse_unknown("dataset", datasets, known.datasets)
    if "all" not in concepts:
        of_datasets = [known.datasets.get(name) for name in datasets]
        every = {name for names in of_datasets for name in names or [None]}
        _refuse_unknown("concept", concepts, every, where=", ".join(datasets))


def _refuse_unknown(
    kind: str, names: Sequence[str], known: Collection[str | None], where: str = ""
) -> None:
    sure = {name for name in known if name is not None}
    if None in known:
        return
    for name in names:
        if name != "all" and name not in sure:
            raise unknown_name(kind, name, sure, where)
