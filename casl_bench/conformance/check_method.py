"""The conformance suite: what the benchmark relies upon in every editing method, ours and yours.

The same checks serve `python -m casl_bench.conformance my_method.py` and our own tests.
"""

from __future__ import annotations

import inspect
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from casl_bench.conformance.method_checks import EDITING, FITTING, TIDINESS
from casl_bench.conformance.method_trial import MethodClass, MethodTrial
from casl_bench.conformance.rules import NotRun, first_line
from casl_bench.core.errors import BenchError, UsageError, unknown_name
from casl_bench.core.registry import load_plugin
from casl_bench.methods.method import METHODS
from casl_bench.runs.names import load_registries

RULE_BOOKS = (FITTING, EDITING, TIDINESS)


def method_checks(method_class: MethodClass) -> Iterator[tuple[str, Callable[[], None]]]:
    """Every check of a method class.

    The checks share one trial, made on first demand: they may be called in any order, or only
    some of them. The whole takes seconds. A method may define a classmethod `toy_config()` that
    returns settings for it; otherwise its defaults are used, with few `fit_steps` where it has
    such a setting.

    Args:
        method_class: as registered.

    Yields:
        (readable name, callable). The callable raises `CheckFailed`, or whatever the method
        raised, where the rule is broken, and `NotRun` where an earlier failure makes the check
        meaningless.
    """
    folder = tempfile.TemporaryDirectory(prefix="casl_bench_checks_")
    trial = MethodTrial(method_class, Path(folder.name).resolve())
    # The folder lives as long as the trial, which the checks keep.
    weakref.finalize(trial, folder.cleanup)
    for book in RULE_BOOKS:
        yield from book.checks(trial)


# `python -m casl_bench.conformance my_method.py`: does a method keep the benchmark's rules?


@click.command(name="python -m casl_bench.conformance")
@click.argument("target")
@click.option("--method", "name", help="Check only this one of the target's methods.")
def command(target: str, name: str | None) -> int:
    """Check the methods of TARGET on a toy domain, in seconds and without a GPU.

    TARGET is a Python file that registers methods, an installed package that offers some through
    the entry point `casl_bench.methods`, or the name of a known method.

    Exit codes: 0 every check passes; 1 a check fails; 2 the target cannot be used.
    """
    failures = [_report(n, METHODS.factory(n)) for n in _names(target, name)]
    return 1 if any(failures) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code and never raises for a user's mistake."""
    try:
        code = command.main(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        return 2
    except BenchError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    # click returns 0 after --help.
    return int(code or 0)


def _names(target: str, name: str | None) -> list[str]:
    path = Path(target)
    if path.suffix == ".py" or path.is_file():
        load_plugin(path)
        found = [n for n in METHODS if _source(METHODS.factory(n)) == path.resolve()]
        advice = "decorate a class with @register_method"
    else:
        load_registries()
        package = target.replace("-", "_")
        found = [n for n in METHODS if n == target or n.startswith(f"{package}/")]
        advice = "give a .py file, an installed package or a method's name"
    if not found:
        broken = "; ".join(f"{m}: {r}" for m, r in METHODS.broken.items())
        hint = f"{advice} (failed to import: {broken})" if broken else advice
        raise UsageError("no method to check", where=target, hint=hint)
    if name is None:
        return found
    chosen = [n for n in found if name in (n, n.rpartition("/")[2])]
    if not chosen:
        raise unknown_name("method", name, found)
    return chosen


def _source(factory: MethodClass) -> Path | None:
    try:
        source = inspect.getsourcefile(factory)
    except TypeError:
        return None
    return Path(source).resolve() if source else None


def _report(name: str, method_class: MethodClass) -> int:
    """Run and print the checks of one method; returns how many failed."""
    click.echo(f"checking {name}")
    failed = total = 0
    for rule, check in method_checks(method_class):
        total += 1
        try:
            check()
        except NotRun as reason:
            click.echo(f"  --    {rule}: not run: {first_line(reason)}")
        except Exception as error:  # noqa: BLE001 - a third-party method may fail in any way
            failed += 1
            click.echo(f"  FAIL  {rule}: {first_line(error)}")
        else:
            click.echo(f"  ok    {rule}")
    verdict = f"{failed} of {total} checks failed" if failed else f"all {total} checks passed"
    click.echo(f"{name}: {verdict}")
    return failed
