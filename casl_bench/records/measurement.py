"""A number as records keep it: with its interval, or with the reason why there is none."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, model_validator

from casl_bench.metrics.metric import Estimate

Finite = Annotated[float, AllowInfNan(False)]


class Frozen(BaseModel):
    """Base of everything stored: unknown fields refused, no NaN, not changed after making."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Measurement(Frozen):
    """One number with its status.

    Attributes:
        status: "ok" has a value; "undefined" was computed and has none (a ratio over noise);
            "missing" was not computed.
        value: the number; None unless ok.
        low: lower end of its interval; None, with `high`, where there is no interval.
        high: upper end.
        level: nominal coverage of the interval.
        n: images (or test items) behind it.
        unit: of `value`.
        reason: why there is no value; None if ok.
    """

    status: Literal["ok", "undefined", "missing"]
    value: Finite | None = None
    low: Finite | None = None
    high: Finite | None = None
    level: Finite = Field(default=0.95, gt=0, lt=1)
    n: int = Field(default=0, ge=0)
    unit: str = ""
    reason: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Measurement:
        ok = self.status == "ok"
        if ok != (self.value is not None) or ok != (self.reason is None):
            raise ValueError("a measurement has a value if its status is ok, else a reason")
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has two ends or none")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("an interval's low end is above its high end")
        return self

    @classmethod
    def of(cls, value: float, n: int, unit: str = "") -> Measurement:
        """A plain number without an interval."""
        return cls(status="ok", value=value, n=n, unit=unit)

    @classmethod
    def undefined(cls, reason: str, n: int = 0, unit: str = "") -> Measurement:
        """Computed, and there is no such number."""
        return cls(status="undefined", reason=reason, n=n, unit=unit)

    @classmethod
    def missing(cls, reason: str, unit: str = "") -> Measurement:
        """Not computed."""
        return cls(status="missing", reason=reason, unit=unit)

    @classmethod
    def from_estimate(cls, estimate: Estimate, unit: str = "") -> Measurement:
        """What a metric returned."""
        if estimate.value is None:
            return cls.undefined(estimate.reason or "undefined", estimate.n, unit)
        return cls(
            status="ok",
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
            level=estimate.level,
            n=estimate.n,
            unit=unit,
        )
