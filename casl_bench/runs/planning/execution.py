"""How a run is carried out: by which engine, for how long, which part of it. No number moves."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from casl_bench.core.errors import UsageError

ExecutorName = Literal["serial", "local", "dask"]
QueueName = Literal["slurm", "pbs", "lsf", "sge"]

SHORTEST_CELL, LONGEST_CELL = 0.001, 366 * 86400.0
"""Bounds of a cell's limit of time, in seconds: the system's timers overflow at some point."""

MOST_SHARDS = 100_000


class Shard(BaseModel):
    """One of several equal parts of a plan.

    Attributes:
        index: which, from 1.
        count: of how many.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: PositiveInt
    count: PositiveInt

    @model_validator(mode="after")
    def _within(self) -> Shard:
        if self.index > self.count:
            raise ValueError("a shard's index is at most their count")
        return self

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """A shard written as "i/n".

        Raises:
            UsageError: where it is none.
        """
        index, _, count = text.partition("/")
        # isdecimal alone takes digits of other scripts, and int gives up on thousands of them.
        digits = len(str(MOST_SHARDS))
        if not all(p.isascii() and p.isdecimal() and len(p) <= digits for p in (index, count)) or (
            not 1 <= int(index) <= int(count) <= MOST_SHARDS
        ):
            raise UsageError(
                f"'{text[:40]}' is no shard",
                where="--shard",
                mend=f"give i/n with i from 1 and n up to {MOST_SHARDS}, e.g. 2/8",
            )
        return cls(index=int(index), count=int(count))


class Execution(BaseModel):
    """Everything that decides where and when cells are run, and nothing that they come to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    executor: ExecutorName | None = Field(
        None, description="The engine; None takes the simplest that does what is asked for."
    )
    scheduler: str | None = Field(
        None, description="Address, or scheduler file, of a Dask cluster that runs already."
    )
    queue: QueueName | None = Field(
        None, description="The kind of batch queue that Dask is to ask for workers."
    )
    cell_timeout: float | None = Field(
        None, ge=SHORTEST_CELL, le=LONGEST_CELL, allow_inf_nan=False,
        description="Seconds after which a cell is ended and counts as failed.",
    )  # fmt: skip
    smoke: bool = Field(
        True, description="Whether a method's first cell must not fail for its others to be run."
    )
    shard: Shard | None = Field(None, description="Run this part of the plan alone.")

    def engine(self, jobs: int) -> ExecutorName:
        """The engine of a run in so many processes."""
        if self.executor is not None:
            return self.executor
        if self.scheduler is not None or self.queue is not None:
            return "dask"
        # A cell can only be ended together with its process.
        return "local" if jobs > 1 or self.cell_timeout is not None else "serial"

    def check(self, jobs: int) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: with what to leave out.
        """
        engine = self.engine(jobs)
        if engine == "serial" and jobs > 1:
            raise UsageError("--executor serial is one process", mend="leave --jobs out")
        if engine == "serial" and self.cell_timeout is not None:
            raise UsageError(
                "--cell-timeout ends a process, and a serial run has but its own",
                mend="use --executor local or dask",
            )
        if engine != "dask" and self.scheduler is not None:
            raise UsageError(
                f"--scheduler is of Dask, not of --executor {engine}", mend="use --executor dask"
            )
        if engine != "dask" and self.queue is not None:
            raise UsageError(
                f"--queue is of Dask, not of --executor {engine}", mend="use --executor dask"
            )
        if self.scheduler is not None and self.queue is not None:
            raise UsageError(
                "--queue starts a cluster, and --scheduler names one that runs",
                mend="leave one of them out",
            )
        if self.scheduler is not None and jobs > 1:
            raise UsageError(
                "--jobs starts workers, and a cluster that runs has its own",
                mend="leave --jobs or --scheduler out",
            )
