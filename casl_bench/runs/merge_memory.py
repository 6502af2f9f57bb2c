"""What a merged folder keeps of the parts that it was made from.

Merging in steps must refuse what merging at once refuses. So the folder keeps the plan of its
parts, which of them were given, and which of them told a cell that was not final (not done, or
compared without another that had failed): such a cell may be told otherwise by those very parts,
once they have been run again, and by no others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from casl_bench.core.errors import UsageError
from casl_bench.core.files import read_json, write_json
from casl_bench.results.run_folder import CellKey, RecordStore

MERGED_FILE = "merged.json"
_VERSION = 1


class MergeMemory(BaseModel):
    """Of one folder that parts are merged into.

    Attributes:
        plan: of the whole run, as the parts keep it.
        count: of parts.
        given: those that were merged, from 1.
        undone: folder of a cell → parts that once told it, and not finally. None is taken away: a
            cell that is final here is so, whoever failed at it before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: NonNegativeInt = _VERSION
    plan: dict[str, Any]
    count: PositiveInt
    given: tuple[PositiveInt, ...]
    undone: dict[str, tuple[PositiveInt, ...]]

    @classmethod
    def read(cls, out: Path) -> MergeMemory | None:
        """What a folder remembers; None where nothing was merged into it.

        Raises:
            UsageError: if that cannot be read, or the folder has records of another origin.
        """
        path = out / MERGED_FILE
        try:
            return cls.model_validate(read_json(path))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            raise UsageError(
                "what was merged here before cannot be read",
                where=str(path),
                mend="merge all parts into a new folder",
            ) from error
        if any(True for _ in RecordStore(out)):
            raise UsageError(
                "the folder has records that no merge of this version has put there",
                where=str(out),
                mend="merge all parts into a new folder",
            )
        return None

    def write(self, out: Path) -> None:
        """Keep it. Before records are: a merge that is cut in between is remembered as well.

        Raises:
            UsageError: where the folder cannot be written.
        """
        write_json(out / MERGED_FILE, self.model_dump(mode="json"))

    def and_also(self, index: int, undone: Iterable[CellKey]) -> MergeMemory:
        """The same after one more part, which does not tell these cells finally."""
        tellers = dict(self.undone)
        for key in undone:
            place = key.path.as_posix()
            tellers[place] = _with(tellers.get(place, ()), index)
        return self.model_copy(update={"given": _with(self.given, index), "undone": tellers})

    def may_be_replaced(self, key: CellKey, by: Collection[int]) -> bool:
        """Whether all parts that did not tell a cell finally are among these."""
        tellers = self.undone.get(key.path.as_posix(), ())
        return bool(tellers) and set(tellers) <= set(by)


def _with(indices: Collection[int], index: int) -> tuple[int, ...]:
    return tuple(sorted({*indices, index}))
