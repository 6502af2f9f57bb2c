"""The record of one cell: everything that a table may say of it, and where it came from.

`provenance` is the only part that may differ between two runs of the same settings; `record_id`
is the hash of all the rest, so equal ids mean equal results.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from casl_bench.core.content_hash import hash_json
from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.metrics.metric import Estimate

SCHEMA_VERSION: Literal[1] = 1

Kind = Literal["edit", "reconstruction", "sae", "probe", "scorer"]
Finite = Annotated[float, AllowInfNan(False)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


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


class SuiteRef(Frozen):
    """Which suite ran; `quick` marks one for trying out, whose numbers are not to be quoted."""

    name: str
    version: int
    quick: bool = False


class CurvePoint(Frozen):
    """Measurements at one strength."""

    strength: Finite
    measurements: dict[str, Measurement]


class Cost(Frozen):
    """What the cell cost, in counts that do not depend on the machine.

    Attributes:
        parameters: numbers learned for this concept.
        unet_calls: U-Net passes of the fit, in images; an encoder or decoder half counts 0.5.
        edit_unet_calls: passes of one edit of one image at one strength; None if not measured.
    """

    parameters: int = Field(default=0, ge=0)
    unet_calls: Finite = Field(default=0.0, ge=0)
    edit_unet_calls: Finite | None = Field(default=None, ge=0)


class FileRef(Frozen):
    """A file that lies beside the record."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
    sha256: Hash
    rows: int | None = Field(default=None, ge=0)


class ErrorInfo(Frozen):
    """Why a cell failed or was skipped."""

    type: str
    message: str


class Provenance(Frozen):
    """Where and when: whatever may differ between two equal runs.

    Attributes:
        package_version: of casl_bench.
        git_commit: of the checkout that ran; None where there is none.
        git_dirty: whether that checkout had changes; None where unknown.
        packages: versions of python and of the packages that decide numbers.
        device: "cpu", "cuda:0 (NVIDIA …)".
        platform: operating system and processor architecture.
        started_at: ISO 8601 with time zone.
        seconds: wall time a phase.
        argv: the command line.
        batch_size: images at once; results must not depend on it.
        threads: CPU threads of a matrix product.
        fit_seconds: wall time of the method's fit, whichever cell or run made it; None where there
            was none or nobody measured it. (`seconds` are this cell's own.)
        fit_peak_memory_mb: most memory held during that fit, in 10⁶ bytes: of the whole process on
            a CPU, of its tensors on a GPU.
    """

    package_version: str
    git_commit: str | None
    git_dirty: bool | None
    packages: dict[str, str]
    device: str
    platform: str
    started_at: str
    seconds: dict[str, Finite] = {}
    argv: tuple[str, ...] = ()
    batch_size: int | None = None
    threads: int | None = None
    fit_seconds: Finite | None = None
    fit_peak_memory_mb: Finite | None = None


class RunRecord(Frozen):
    """One cell.

    Attributes:
        schema_version: raised, with a migration, when the meaning of a field changes.
        kind: "edit" (a method on a concept), "reconstruction" (inversion and back), "sae",
            "probe" or "scorer".
        world: "synth" or "real".
        dataset: its name.
        dataset_revision: changes whenever a pixel or a label may.
        suite: name, version, quick.
        seed: the run's seed.
        method: None for kinds that concern no method.
        method_version: as declared; raised whenever its numbers may change.
        method_config: all its settings.
        supervision: what guided the fit.
        control: whether it is a control (unranked).
        beside: for a control matched to an entrant: that entrant.
        concept: None for kinds that concern no concept.
        strength: the chosen one.
        strength_chosen_on: "validation", or "given" where there was no choice.
        strengths: all that were run.
        measurements: at the chosen strength; per metric name.
        curve: at every strength.
        drift: attribute → signed mean change at the chosen strength, in standard deviations of its
            logit; None where undefined. The target is among them.
        metric_versions: metric name → version.
        attributes: all attributes of the classifiers in order; those other than the target are
            part of what EPR means.
        scorers: scorer name → hash of its weights.
        backbone: hash of the backbone's weights; None where none took part.
        artefacts: name → content hash of what the cell was made from ("sae", "inversions", …).
        cost: counts.
        scores: per-image scores, a CSV beside the record.
        images: edited images, a file beside the record.
        status: "failed" and "skipped" have an `error`.
        error: its class and message.
        flags: what a reader should know before trusting the numbers, sorted.
        provenance: not part of the record's identity.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Kind
    world: str
    dataset: str
    dataset_revision: str
    suite: SuiteRef
    seed: int
    method: str | None = None
    method_version: int | None = None
    method_config: dict[str, JsonValue] = {}
    supervision: Literal["none", "text", "labels"] | None = None
    control: bool = False
    beside: str | None = None
    concept: str | None = None
    strength: Finite | None = None
    strength_chosen_on: Literal["validation", "given"] | None = None
    strengths: tuple[Finite, ...] = ()
    measurements: dict[str, Measurement] = {}
    curve: tuple[CurvePoint, ...] = ()
    drift: dict[str, Finite | None] = {}
    metric_versions: dict[str, int] = {}
    attributes: tuple[str, ...] = ()
    scorers: dict[str, str] = {}
    backbone: str | None = None
    artefacts: dict[str, str] = {}
    cost: Cost = Cost()
    scores: FileRef | None = None
    images: FileRef | None = None
    status: Literal["done", "failed", "skipped"] = "done"
    error: ErrorInfo | None = None
    flags: tuple[str, ...] = ()
    provenance: Provenance

    @model_validator(mode="after")
    def _consistent(self) -> RunRecord:
        if (self.status == "done") != (self.error is None):
            raise ValueError("a record has an error if and only if its status is not done")
        if self.kind == "edit" and (self.method is None or self.concept is None):
            raise ValueError("the record of an edit names a method and a concept")
        if self.beside is not None and self.method is None:
            raise ValueError("only a method can stand beside another")
        if self.strength is not None and self.strength_chosen_on is None:
            raise ValueError("a strength says where it was chosen")
        if list(self.flags) != sorted(set(self.flags)):
            raise ValueError("flags are sorted and distinct")
        json.dumps(self.method_config, allow_nan=False)
        return self

    def comparable(self) -> dict[str, Any]:
        """Everything but provenance, as JSON values: equal between two equal runs."""
        return self.model_dump(mode="json", exclude={"provenance"})

    @property
    def record_id(self) -> str:
        """SHA-256 of `comparable()`, hex."""
        return hash_json(self.comparable())

    def to_json(self) -> dict[str, Any]:
        """JSON values as stored: all fields and the record's id."""
        return {"record_id": self.record_id, **self.model_dump(mode="json")}

    @classmethod
    def from_json(cls, stored: Any, where: str = "") -> RunRecord:
        """The record that `to_json` described.

        Raises:
            InvalidBenchmarkError: if it breaks the schema or its id does not match its content.
        """
        if not isinstance(stored, dict):
            raise InvalidBenchmarkError("not a record: no JSON object", where=where)
        try:
            record = cls.model_validate_json(
                json.dumps({k: v for k, v in stored.items() if k != "record_id"}), strict=True
            )
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "record"
            raise InvalidBenchmarkError(
                f"not a valid record: {field}: {first['msg']}", where=where
            ) from error
        if stored.get("record_id") != record.record_id:
            raise InvalidBenchmarkError(
                "record was changed after it was written: its id does not match its content",
                where=where,
                mend="run the cell again",
            )
        return record
