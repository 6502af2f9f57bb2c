"""Records: what one cell knows of itself (`CellRecord`), and its numbers (`RunRecord`).

`provenance` is the only part that may differ between two runs of the same settings; `record_id`
is the hash of all the rest, so equal ids mean equal results. `provenance_id` is of both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.core.files import hash_json, write_json
from casl_bench.metrics.metric import Estimate

MOST = 1e100
"""No number measured is larger; squares and ratios of such numbers do not overflow."""

Finite = Annotated[float, AllowInfNan(False), Field(ge=-MOST, le=MOST)]
End = Annotated[float, AllowInfNan(False)]
"""Of an interval: with two concepts it may be wider than any number measured."""
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""What 64 bits hold, in files of any format."""


class Frozen(BaseModel):
    """Base of everything stored: unknown fields refused, no NaN, not changed after making."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )


class Measurement(Frozen):
    """One number with its status.

    "ok" has a value; "undefined" was computed and has none (a ratio over noise); "missing" was not
    computed. Without a value there is a reason. `low` and `high` are the ends of its interval, of
    nominal coverage `level`, or None; `n` counts the images (or test items) behind it.
    """

    status: Literal["ok", "undefined", "missing"]
    value: Finite | None = None
    low: End | None = None
    high: End | None = None
    level: Finite = Field(default=0.95, gt=0, lt=1)
    n: Count = 0
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
            n=estimate.n,
            unit=unit,
        )


LevelName = Annotated[str, Field(pattern=r"^[a-z]+(_[0-9]+)?$")]

GAP, POWER = 0.2, 0.8
"""What `Comparison.concepts_needed` is for."""

ALL = "all"
"""Stands in the place of a data set in a record that compares methods over several."""


class Standing(Frozen):
    """One method among those compared.

    Attributes:
        headline: precise edits, mean over concepts, each method at the strength that is best on
            validation images; its interval is for other images and other concepts like these. None
            in records that EPR+ ranks.
        headline_here: the same number with an interval for these very concepts: other images only.
        p_first: share of resamples, of concepts and images, in which it is first.
        epr_plus: over concepts; its interval is for other images and other concepts like these.
        epr_plus_here: the same number with an interval for these very concepts: other images only.
        rank_low: best rank that the comparison leaves open, 1 first; `rank_high` the worst.
        group: significance letters; two methods that share one do not differ significantly.
        reached: cells, of those that count, in which the effect was reached; in `wrong_way` of them
            the opposite was.
        fit_sd: standard deviation of what ranks (of EPR+: of its signed log) between n fits, images
            equal.
    """

    method: str
    headline: Measurement | None = None
    headline_here: Measurement | None = None
    p_first: Probability | None = None
    epr_plus: Measurement
    epr_plus_here: Measurement
    rank_low: Count = Field(ge=1)
    rank_high: Count = Field(ge=1)
    group: Annotated[str, Field(pattern=r"^([A-Za-z]|\([0-9]+\))*$")]
    reached: Count
    wrong_way: Count
    cells: Count = Field(ge=1)
    fit_sd: Measurement


class Pair(Frozen):
    """Two methods on the same images and concepts; `p` is two-sided.

    Attributes:
        difference: mean over concepts of the headline, a minus b; in records that EPR+ ranks, of
            its signed log.
        p: for other images and other concepts like these.
        p_here: for these very concepts: other images only.
        p_holm: adjusted for all pairs of the comparison.
    """

    a: str
    b: str
    difference: Measurement
    p: Probability | None
    p_holm: Probability | None
    p_here: Probability | None = None

    def seen_from(self, method: str) -> Pair:
        """The pair with this method, one of its two, first."""
        if self.a == method:
            return self
        d = self.difference
        ends = {"value": d.value, "low": d.high, "high": d.low}
        turned = {name: None if end is None else -end for name, end in ends.items()}
        difference = d.model_copy(update=turned)
        return self.model_copy(update={"a": self.b, "b": self.a, "difference": difference})


class Agreement(Frozen):
    """Whether another classifier ranks the n methods alike.

    Attributes:
        order: methods, best first, as it ranks them.
        tau: Kendall's tau-b with the primary classifier's order; None with fewer than two methods.
    """

    scorer: str
    order: tuple[str, ...]
    tau: Finite | None
    n: Count


class Sensitivity(Frozen):
    """Variants of one kind, each leaving one thing out.

    Attributes:
        kind: "attribute", "scorer", "data set" or "concept".
        holds: in how many of them the first method stays first.
        broken_by: what is left out where it does not.
    """

    kind: str
    variants: Count
    holds: Count
    broken_by: tuple[str, ...]


class Comparison(Frozen):
    """All methods that ran everything.

    Attributes:
        level: of effect, at which EPR+ is.
        headline: name of the metric that ranks; None in records that EPR+ ranks.
        concepts_needed: for a gap of `GAP` of the first method's headline to be found with
            probability `POWER`; None where it is not known.
        concepts: "dataset/concept", those that count.
        standings: best first.
        pairs: every two of them.
        agreements: one per further classifier.
        sensitivity: one per kind of variant that there is.
        incomplete: methods left out, as they have not run everything.
    """

    level: LevelName
    headline: str | None = None
    concepts_needed: Count | None = None
    datasets: tuple[str, ...]
    concepts: tuple[str, ...]
    standings: tuple[Standing, ...]
    pairs: tuple[Pair, ...]
    agreements: tuple[Agreement, ...]
    sensitivity: tuple[Sensitivity, ...]
    incomplete: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _of_every_two(self) -> Comparison:
        methods = [standing.method for standing in self.standings]
        found = {frozenset((pair.a, pair.b)) for pair in self.pairs}
        if len(set(methods)) != len(methods):
            raise ValueError("a method stands twice among those compared")
        # Counted first: a record of few pairs and very many methods would take for ever.
        if len(self.pairs) != math.comb(len(methods), 2) or found != {
            frozenset(two) for two in combinations(methods, 2)
        }:
            raise ValueError("a comparison has every two of its methods, once")
        return self


SCHEMA_VERSION: Literal[3] = 3

CellKind = Literal["edit", "null", "reconstruction", "sae", "probe", "scorer"]
Kind = Literal[CellKind, "comparison"]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class SuiteRef(Frozen):
    """Which suite ran; `quick` marks one for trying out, whose numbers are not to be quoted."""

    name: str
    version: Count
    quick: bool = False


class CurvePoint(Frozen):
    """Measurements at one strength."""

    strength: Finite
    measurements: dict[str, Measurement]


FULL = "full"
"""The level of strength 1, of controls whose full effect is known."""


PRECISE = "precise"
"""The level of the strength with the most precise edits of validation images."""


class Level(Frozen):
    """One effect at which methods are compared, and the strength that a method needs for it.

    Attributes:
        name: "effect_50" (per cent of the full effect), "flip_50", "full" (strength 1), or
            "precise" (the strength with the most precise edits).
        goal: what the validation images were to show; of "precise", what they show.
        unit: of `goal`: "sd", "share", or "strength".
        status: whether they showed it at some strength; "wrong_way" where the opposite was shown,
            "still_rising" where none was and the response still rose at the largest strength tried.
        strength: chosen there and applied to the test images; None where nothing was reached.
        largest: effect that the validation images showed; None where there was no choice.
    """

    name: LevelName
    goal: Finite
    unit: str
    status: Literal["reached", "not_reached", "still_rising", "wrong_way"]
    strength: Finite | None = None
    largest: Finite | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Level:
        if (self.strength is None) != (self.status in ("not_reached", "still_rising")):
            raise ValueError("a level has a strength if and only if something was reached")
        return self

    @property
    def status_in_words(self) -> str:
        """As tables say it: "not reached", "still rising"."""
        return self.status.replace("_", " ")


class LevelResult(Level):
    """A level with what the test images show at its strength."""

    measurements: dict[str, Measurement] = Field(default_factory=dict)


LevelT = TypeVar("LevelT", bound=Level)


def headline_level(levels: Sequence[LevelT]) -> LevelT | None:
    """The level of effect at which methods are compared, the middle one; None without levels."""
    effects = [level for level in levels if level.name.startswith("effect_")]
    return effects[len(effects) // 2] if effects else None


class ReferenceScales(Frozen):
    """The units of a data set's scores, measured once.

    Attributes:
        spreads: classifier → standard deviation of each of its logits over the training images,
            in the order of the record's attributes.
        unrelated_perceptual: mean perceptual distance of pairs of unrelated test images, > 0.
        unrelated_identity: mean identity similarity of such pairs, in [-1, 1).
    """

    spreads: dict[str, tuple[Annotated[Finite, Field(gt=0)], ...]]
    unrelated_perceptual: Finite | None = None
    unrelated_identity: Finite | None = None


class Cost(Frozen):
    """What the cell cost, in counts that do not depend on the machine.

    Attributes:
        parameters: numbers learned for this concept.
        unet_calls: U-Net passes of the fit, in images; an encoder or decoder half counts 0.5.
        edit_unet_calls: passes of one edit of one image at one strength; None if not measured.
    """

    parameters: Count = 0
    unet_calls: Finite = Field(default=0.0, ge=0)
    edit_unet_calls: Finite | None = Field(default=None, ge=0)


class FileRef(Frozen):
    """A file that lies beside the record."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
    sha256: Hash
    rows: Count | None = None


class ErrorInfo(Frozen):
    """Why a cell failed or was skipped."""

    type: str
    message: str


class Provenance(Frozen):
    """Where and when: whatever may differ between two equal runs.

    Attributes:
        packages: versions of python and of the packages that decide numbers.
        device: "cpu", "cuda:0 (NVIDIA …)".
        kernels: how the frozen U-Net ran, "reference" or what was otherwise.
        started_at: ISO 8601 with time zone.
        seconds: wall time by phase.
        unet_passes: by phase, those made for this record alone, in images, batches that were filled
            up in full; a phase that made none is not there.
        batch_size: images at once; results must not depend on it.
        threads: CPU threads of a matrix product.
        fit_seconds: wall time of the method's fit (in the record of an SAE: of its training),
            whichever cell or run made it; None where there was none or it was not measured.
            (`seconds` are this cell's own, and of a reconstruction the inversions'.)
        fit_peak_memory_mb: most memory held during that fit, in 10⁶ bytes: of the whole process on
            a CPU, of its tensors on a GPU.
        sources: code that took part and is not this package's own, such as "method asyrp" → SHA-256
            of its source files.
    """

    package_version: str
    git_commit: str | None
    git_dirty: bool | None
    packages: dict[str, str]
    device: str
    kernels: str = "reference"
    platform: str
    started_at: str
    seconds: dict[str, Finite] = Field(default_factory=dict)
    unet_passes: dict[str, Finite] = Field(default_factory=dict)
    argv: tuple[str, ...] = ()
    batch_size: Count | None = None
    threads: Count | None = None
    fit_seconds: Finite | None = None
    fit_peak_memory_mb: Finite | None = None
    sources: dict[str, Hash] = Field(default_factory=dict)


_NEW_IN_2 = frozenset(
    {"levels", "full_effect", "curve_on", "fit_seed", "judges", "guided_by", "metric_identities",
     "comparison", "drift_margin"}
)  # fmt: skip
"""Fields that records of version 1 lack; such a record is read as it is, with defaults."""

_NEW_IN_3 = frozenset({"attribute", "monotone"})
"""Likewise of versions 1 and 2."""


_NEW_WITH_HEADLINE = frozenset(
    {"headline", "concepts_needed", "headline_here", "p_first", "p_here"}
)
"""Fields of a comparison that those lack which EPR+ ranks."""

DOMAIN_TITLES = {"synth": "rendered", "real": "photographs", "own": "own images"}
"""Kind of domain, as files have it since schema 1 → as it is shown."""


class _Record(Frozen):
    """What cells and numbers both say of a cell.

    Attributes:
        domain_kind: "synth" or "real".
        dataset_revision: changes whenever a pixel or a label may.
        method: None for kinds that concern no method; likewise `concept`.
        beside: for a control matched to a method: that method.
        attribute: that the concept turns on; None in records of versions 1 and 2.
        strength_chosen_on: "validation", or "given" where there was no choice.
        strengths: all that were run on the test images.
        full_effect: mean target change of the perfect edit on the validation images, in sd, of
            which the levels are shares; None where nothing was matched.
        monotone: whether the effect never falls as strength grows, up to the largest asked for.
        fit_seed: which of several fits (or random directions) this is.
        judges: scoring classifiers, the primary one first; all of those that the method was not
            guided by come before those that it was.
        guided_by: scorers that the method was optimised against.
        attributes: of the classifiers, in order; those other than the target are part of what EPR
            means.
        scorers: scorer name → hash of its weights.
        backbone: hash of the backbone's weights, and of its kernels where they are not the
            reference's; None where none took part.
        artifacts: name → content hash of what the cell was made from ("sae", "inversions", …).
        scores: per-image scores of the test images, a file beside the record, as are `images`.
        provenance: not part of the record's identity.
    """

    domain_kind: str = Field(alias="world")  # its name in files, since schema 1
    dataset: str
    dataset_revision: str
    suite: SuiteRef
    seed: Count
    method: str | None = None
    method_version: Count | None = None
    method_config: dict[str, JsonValue] = Field(default_factory=dict)
    supervision: Literal["none", "text", "labels"] | None = None
    control: bool = False
    beside: str | None = None
    concept: str | None = None
    attribute: str | None = None
    strength: Finite | None = None
    strength_chosen_on: Literal["validation", "given"] | None = None
    strengths: tuple[Finite, ...] = ()
    full_effect: Finite | None = None
    monotone: bool = True
    fit_seed: Count = 0
    judges: tuple[str, ...] = ()
    guided_by: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    scorers: dict[str, str] = Field(default_factory=dict)
    backbone: str | None = None
    artifacts: dict[str, str] = Field(default_factory=dict, alias="artefacts")
    cost: Cost = Cost()
    scores: FileRef | None = None
    images: FileRef | None = None
    status: Literal["done", "failed", "skipped"] = "done"
    error: ErrorInfo | None = None
    provenance: Provenance

    @property
    def domain_title(self) -> str:
        """The kind of domain as it is shown: "rendered", "photographs", or the kind itself."""
        return DOMAIN_TITLES.get(self.domain_kind, self.domain_kind)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.status == "done") != (self.error is None):
            raise ValueError("a record has an error if and only if its status is not done")
        if self.beside is not None and self.method is None:
            raise ValueError("only a method can stand beside another")
        if self.strength is not None and self.strength_chosen_on is None:
            raise ValueError("a strength says where it was chosen")
        json.dumps(self.method_config, allow_nan=False)
        return self

    def comparable(self) -> dict[str, Any]:
        """Everything but provenance, as JSON values: equal between two equal runs."""
        return {k: v for k, v in self._dumped().items() if k != "provenance"}

    def _dumped(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)

    @property
    def record_id(self) -> str:
        """SHA-256 of `comparable()`, hex."""
        return hash_json(self.comparable())

    def to_json(self) -> dict[str, Any]:
        """JSON values as stored: all fields, the record's id, and one of it and its provenance."""
        stored = self._dumped()
        ids = {"record_id": self.record_id}
        ids["provenance_id"] = hash_json([self.record_id, stored["provenance"]])
        return {**ids, **stored}

    @classmethod
    def from_json(cls, stored: Any, where: str = "") -> Self:
        """The record that `to_json` described; InvalidBenchmarkError on anything else."""
        if not isinstance(stored, dict):
            raise InvalidBenchmarkError("not a record: no JSON object", where=where)
        try:
            record = cls.model_validate_json(
                json.dumps({k: v for k, v in stored.items() if k not in _IDS}), strict=True
            )
        except RecursionError as error:
            raise InvalidBenchmarkError("not a record: nested too deeply", where=where) from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or "record"
            raise InvalidBenchmarkError(
                f"not a valid record: {field}: {first['msg']}", where=where
            ) from error
        known = record.to_json()
        if stored.get("record_id") != known["record_id"]:
            raise InvalidBenchmarkError(
                "record was changed after it was written: its id does not match its content",
                where=where,
                hint="run the cell again",
            )
        # Records of schemas 1 and 2 have none; `submit` wants one.
        if stored.get("provenance_id", known["provenance_id"]) != known["provenance_id"]:
            raise InvalidBenchmarkError(
                "provenance was changed after it was written: its id does not match its content",
                where=where,
                hint="run the cell again",
            )
        return record


_IDS = ("record_id", "provenance_id")

DIRECTIONS = "random_directions"
"""Under this name the `artifacts` of a random direction's record hold how many were asked for."""


NOT_CARRIED = "not carried by h: "
"""Beginning of a flag of a data set's reconstruction: an attribute follows, which is no concept."""


class CellRecord(_Record):
    """What one cell knows of itself: no metric, no version of a metric, no other cell.

    Attributes:
        kind: "edit" (a method on a concept), "null" (a random direction on the images that serve
            every concept), "reconstruction" (inversion and back), "sae", "probe" or "scorer".
        levels: at equal effect: what was chosen on validation images.
        validation_scores: per-image scores of the validation images at every strength tried.
        measurements: of a whole data set or a probe, which nothing else holds; empty for edits.
        scales: of the kind "scorer": the units of all scores of the data set.
    """

    schema_version: Literal[3] = SCHEMA_VERSION
    kind: CellKind
    levels: tuple[Level, ...] = ()
    validation_scores: FileRef | None = None
    measurements: dict[str, Measurement] = Field(default_factory=dict)
    scales: ReferenceScales | None = None
    flags: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _knows_only_itself(self) -> CellRecord:
        if self.kind == "edit" and (self.method is None or self.attribute is None):
            raise ValueError("the record of an edit names a method and an attribute")
        if self.kind == "edit" and self.measurements:
            raise ValueError("the record of an edit holds scores, not measurements")
        spreads = {} if self.scales is None else self.scales.spreads
        if any(len(own) != len(self.attributes) for own in spreads.values()):
            raise ValueError("there is a spread of each attribute")
        return self


class RunRecord(_Record):
    """The numbers of one cell, or of a comparison: what tables are made of.

    Attributes:
        schema_version: raised, with a migration, when the meaning of a field changes.
        kind: as of a `CellRecord`, or "comparison".
        measurements: at the chosen strength; per metric name.
        levels: at equal effect: what was chosen on validation images, and what it did.
        curve: at every strength of the suite's grid, on the images of `curve_on`.
        metric_identities: metric name → hash of its version, the list of other attributes, the
            baseline and the noise floor: what must be equal for two numbers to be comparable.
        drift: attribute → off-target shift: signed mean change at the chosen strength, in standard
            deviations of its logit; None where undefined. The target is among them.
        drift_margin: attribute → half of the 95 % interval of its drift, for other images; none
            with fewer than two.
        flags: what a reader should know before trusting the numbers, sorted.
    """

    schema_version: Literal[1, 2, 3] = SCHEMA_VERSION
    kind: Kind
    measurements: dict[str, Measurement] = Field(default_factory=dict)
    levels: tuple[LevelResult, ...] = ()
    curve: tuple[CurvePoint, ...] = ()
    curve_on: Literal["validation", "test"] = "test"
    metric_identities: dict[str, str] = Field(default_factory=dict)
    metric_versions: dict[str, Count] = Field(default_factory=dict)
    comparison: Comparison | None = None
    drift: dict[str, Finite | None] = Field(default_factory=dict)
    drift_margin: dict[str, Finite] = Field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> RunRecord:
        if self.kind == "edit" and (self.method is None or self.concept is None):
            raise ValueError("the record of an edit names a method and a concept")
        if list(self.flags) != sorted(set(self.flags)):
            raise ValueError("flags are sorted and distinct")
        return self

    def _dumped(self) -> dict[str, Any]:
        newer: frozenset[str] = frozenset()
        if self.schema_version < 3:
            newer = _NEW_IN_3 if self.schema_version == 2 else _NEW_IN_2 | _NEW_IN_3
        # A cell of one image has no margins, and a record written before there were any is whole.
        if not self.drift_margin:
            newer |= {"drift_margin"}
        dumped = self.model_dump(mode="json", by_alias=True, exclude=set(newer))
        # Likewise of a comparison that EPR+ ranks.
        if self.comparison is not None and self.comparison.headline is None:
            found = dumped["comparison"]
            for part in (found, *found["standings"], *found["pairs"]):
                for name in _NEW_WITH_HEADLINE & part.keys():
                    del part[name]
        return dumped


SCHEMA_FILE = Path(__file__).with_name("schema.json")
"""The published format of records, written by `python -m casl_bench.results.record`."""


def record_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of a stored record, generated from `RunRecord`."""
    schema = RunRecord.model_json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["record_id"] = {
        "type": "string",
        "pattern": "^[0-9a-f]{64}$",
        "description": "SHA-256 of canonical JSON of all other fields but provenance.",
    }
    schema["properties"]["provenance_id"] = {
        "type": "string",
        "pattern": "^[0-9a-f]{64}$",
        "description": "SHA-256 of canonical JSON of [record_id, provenance]; since schema 3.",
    }
    schema["required"] = sorted([*schema["required"], "record_id"])
    return schema


if __name__ == "__main__":
    write_json(SCHEMA_FILE, record_schema())
