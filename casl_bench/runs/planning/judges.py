"""Who judges a method: never only a scorer that it was optimised against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from casl_bench.core.errors import UsageError
from casl_bench.methods.method import MethodInfo
from casl_bench.runs.planning.config import RunConfig
from casl_bench.runs.planning.plan import info_of
from casl_bench.worlds.world import World

PRIMARY = "primary"
"""Stands in `guided_by` for the classifier that comes first in the world."""


def judges(info: MethodInfo, classifiers: Sequence[str]) -> tuple[str, ...]:
    """All classifiers, the one that decides first: one that did not guide the method.

    A control stays with the world's order: what it shows is how such a judge is fooled.

    Args:
        info: of the method.
        classifiers: of the world, the primary one first.

    Raises:
        UsageError: if every classifier guided the method.
    """
    if info.control:
        return tuple(classifiers)
    guides = guides_of(info, classifiers)
    free = [name for name in classifiers if name not in guides]
    if not free:
        raise UsageError(
            f"'{info.name}' was guided by every classifier that could judge it",
            mend="give the world a classifier that the method has not seen",
        )
    return (*free, *(name for name in classifiers if name in guides))


def guides_of(info: MethodInfo, classifiers: Sequence[str]) -> tuple[str, ...]:
    """Names of the scorers that guided a method."""
    return tuple(classifiers[0] if name == PRIMARY else name for name in info.guided_by)


def check_judges(config: RunConfig, worlds: Mapping[str, World]) -> None:
    """Refuse a run in which a method would be judged by its own guide alone.

    Raises:
        UsageError: with the method and the data set.
    """
    for dataset, world in worlds.items():
        names = [c.info.name for c in world.classifiers]
        others = {world.score_clip.info.name: "score_clip", world.embedder.info.name: "embedder"}
        for method in config.methods:
            info = info_of(method)
            try:
                judges(info, names)
            except UsageError as error:
                raise UsageError(error.what, where=dataset, mend=error.mend) from error
            if seen := sorted(set(info.guided_by) & set(others)):
                raise UsageError(
                    f"'{method}' was guided by '{seen[0]}', which alone scores what it scores",
                    where=dataset,
                    mend="guide it by other weights: what guides a method never scores it",
                )
