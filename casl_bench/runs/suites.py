"""What a run is asked to do: the suite (how much of everything) and the run around it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from casl_bench.cache.store import default_cache
from casl_bench.core.errors import UsageError, unknown_name
from casl_bench.core.files import read_json, safe_name
from casl_bench.domains.options import DomainOptions

if TYPE_CHECKING:
    from casl_bench.domains.dataset import Split

ExecutorName = Literal["serial", "local", "dask"]
QueueName = Literal["slurm", "pbs", "lsf", "sge"]

SHORTEST_CELL, LONGEST_CELL = 0.001, 366 * 86400.0
"""Bounds of a cell's limit of time, in seconds: the system's timers overflow at some point."""

MOST_SHARDS = 100_000


class Shard(BaseModel):
    """Part `index`, from 1, of `count` equal parts of a plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: PositiveInt
    count: PositiveInt

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """A shard written as "i/n"; UsageError where it is none."""
        found = re.fullmatch("([0-9]{1,6})/([0-9]{1,6})", text)
        index, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= index <= count <= MOST_SHARDS:
            raise UsageError(
                f"'{text[:40]}' is no shard",
                where="--shard",
                hint=f"give i/n with i from 1 and n up to {MOST_SHARDS}, e.g. 2/8",
            )
        return cls(index=index, count=count)


class Execution(BaseModel):
    """Where and when cells are run; no number depends on it."""

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
        """Refuse, with a UsageError that says what to leave out, what contradicts itself."""
        engine = self.engine(jobs)
        of_dask = f"is of Dask, not of --executor {engine}"
        faults = (
            (engine == "serial" and jobs > 1, "--executor serial is one process",
             "leave --jobs out"),
            (engine == "serial" and self.cell_timeout is not None,
             "--cell-timeout ends a process, and a serial run has but its own",
             "use --executor local or dask"),
            (engine != "dask" and self.scheduler is not None, f"--scheduler {of_dask}",
             "use --executor dask"),
            (engine != "dask" and self.queue is not None, f"--queue {of_dask}",
             "use --executor dask"),
            (self.scheduler is not None and self.queue is not None,
             "--queue starts a cluster, and --scheduler names one that runs",
             "leave one of them out"),
            (self.scheduler is not None and jobs > 1,
             "--jobs starts workers, and a cluster that runs has its own",
             "leave --jobs or --scheduler out"),
        )  # fmt: skip
        for contradicts, what, hint in faults:
            if contradicts:
                raise UsageError(what, hint=hint)


MIN_TEST_IMAGES = 32
"""EPR is measured on at least this many test images per concept, unless the suite is quick."""

QUICK_CONCEPTS = 1
"""A quick suite edits so many concepts of a data set, its first, unless concepts are named."""

VALIDATION_POOL = 4
"""Validation images inverted for each one that a concept uses: about half lack its attribute."""

VALIDATION_POOL_OF_PHOTOS = 12
"""The same on real data sets: of CelebA's faces some three quarters are young."""

DEFAULT_SAE = "top_k"
"""The dictionary of CASL, CASL-Steer and SAE steering where `--sae` names no other."""

DOWNSTREAM_IMAGES = 16
"""Test images on which it is measured what an SAE costs downstream."""

TUNED = Path(__file__).parent / "tuned" / "standard.json"
"""Settings chosen by the committed tuning sweep, see the README beside the file."""

MethodSettings = dict[str, dict[str, JsonValue]]
"""Method → settings over its defaults."""


BoundedCount = Annotated[int, Field(ge=1, le=10**7)]
"""Of images or steps: what a folder's manifest says must not fill the memory or never end."""


class Suite(BaseModel):
    """How much of everything a run does. Frozen, unknown fields refused.

    The whole of it enters the key of every cell, so results of two suites never mix. Raise
    `version` when a number changes under the same name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="As on the command line.")
    version: BoundedCount = Field(description="Raised whenever a number of this suite may change.")
    description: str = Field(description="What it is for, in one sentence.")
    quick: bool = Field(False, description="For trying out: stamped so in records and tables.")

    num_steps: int = Field(
        ge=2, le=100_000, description="DDIM steps of inversion and of generation."
    )
    timestep_power: float = Field(
        gt=0, description="Timesteps are int(linspace(0, 1, n) ** power * t_max); above 1 they "
        "crowd towards the image, where the trajectory bends most.",
    )  # fmt: skip
    extrapolate: bool = Field(
        True, description="Whether inversion steps are made with what the last two foretell; false "
        "is the plain DDIM inversion of the Asyrp and DiffusionCLIP code.",
    )  # fmt: skip
    train_images: BoundedCount = Field(
        description="Images that methods, SAE and probes learn from, inverted once for all."
    )
    validation_images: BoundedCount = Field(
        description="Validation images per concept on which strengths are chosen."
    )
    test_pool_images: BoundedCount = Field(
        description="Test images from which each concept takes those that lack its attribute."
    )
    test_images_per_concept: BoundedCount = Field(
        description="Test images edited per concept (n of the table)."
    )
    strengths: tuple[FiniteFloat, ...] = Field(
        min_length=1, description="Grid of strengths that is run on validation images; 1 is the "
        "fitted one. What reaches a level on it is run on test images."
    )  # fmt: skip
    effects: tuple[FiniteFloat, ...] = Field(
        (0.25, 0.5, 0.75), min_length=2, description="Levels at which methods are compared, in "
        "shares of the mean target change of the perfect edit; the middle one is the headline."
    )  # fmt: skip
    doublings: int = Field(
        4, ge=0, le=20, description="How often at most the grid of strengths is doubled beyond its "
        "last, for a method that has not reached a level there and whose response still rises."
    )  # fmt: skip
    random_draws: BoundedCount = Field(8, description="Random directions that EPR+ is divided by.")
    fit_image_steps: BoundedCount | None = Field(
        description="Budget of a fit, in images times timesteps that are learned from: every "
        "method whose settings have a `fit_steps` takes the steps that fit into it, at most its "
        "own (published) number; null leaves each method its own."
    )
    references: bool = Field(
        True, description="Whether the references, which methods must beat, are run with them."
    )
    fit_seeds: BoundedCount = Field(
        1,
        description="Fits of every method on every concept, each with random numbers of its "
        "own, where the command does not say how many.",
    )
    settings: MethodSettings = Field(
        {}, description="Method → settings over its defaults, as chosen on validation images by "
        "`casl-bench tune`; a method that is not named keeps its defaults."
    )  # fmt: skip
    sae_steps: BoundedCount = Field(description="Optimiser steps of the SAE shared by methods.")
    probe_train_images: BoundedCount = Field(description="Train images of the SVM probe.")
    probe_test_images: BoundedCount = Field(description="Test images of the SVM probe.")
    probe_ks: tuple[BoundedCount, ...] = Field(
        min_length=1, description="Numbers of top-ranked latents given to the probe."
    )

    @property
    def max_concepts(self) -> int | None:
        """How many concepts of a data set are edited where none are named; None for all."""
        return QUICK_CONCEPTS if self.quick else None

    @property
    def validation_pool_images(self) -> int:
        """Validation images from which each concept takes those that lack its attribute."""
        real = domain_kind_of_suite(self.name) == "real"
        return (VALIDATION_POOL_OF_PHOTOS if real else VALIDATION_POOL) * self.validation_images

    @property
    def split_sizes(self) -> dict[Split, int]:
        """Images of each split that are inverted."""
        return {
            "train": self.train_images,
            "validation": self.validation_pool_images,
            "test": self.test_pool_images,
        }

    @field_validator("strengths", "effects", "probe_ks")
    @classmethod
    def _increasing(cls, values: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if min(values) <= 0:
            raise ValueError("0 is the reconstruction, which every run has anyway: give more")
        if list(values) != sorted(set(values)):
            raise ValueError(f"{info.field_name} must be distinct and increasing")
        return values

    @model_validator(mode="after")
    def _enough_images(self) -> Suite:
        if not self.quick and self.test_images_per_concept < MIN_TEST_IMAGES:
            raise ValueError(
                f"a suite that is not quick needs at least {MIN_TEST_IMAGES} test images a concept"
            )
        for part, pool, total in (
            ("test_images_per_concept", "test_pool_images", self.test_pool_images),
            ("probe_test_images", "test_pool_images", self.test_pool_images),
            ("probe_train_images", "train_images", self.train_images),
        ):
            if getattr(self, part) > total:
                raise ValueError(f"{part} is more than {pool}")
        return self


def read_settings(path: Path) -> MethodSettings:
    """Method → settings from a JSON file, such as the `chosen.json` of a sweep."""
    try:
        return TypeAdapter(MethodSettings).validate_python(read_json(path))
    except (OSError, ValueError, ValidationError) as error:
        raise UsageError(
            "not a file of method settings", where=str(path), hint='e.g. {"casl": {"gain": 3.0}}'
        ) from error


def _tuned(**changes: dict[str, JsonValue]) -> MethodSettings:
    tuned = read_settings(TUNED)
    return tuned | {name: tuned.get(name, {}) | change for name, change in changes.items()}


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite(
            name="default",
            version=6,
            description="A first result: two methods on one data set in about seven minutes on two "
            "cores, with intervals that say how little a small run knows.",
            num_steps=12,
            timestep_power=1.5,
            train_images=96,
            validation_images=8,
            test_pool_images=96,
            test_images_per_concept=32,
            strengths=(0.5, 1.5, 3.0),
            effects=(0.25, 0.5),
            random_draws=4,
            fit_image_steps=400,
            settings=_tuned(),
            sae_steps=800,
            probe_train_images=96,
            probe_test_images=80,
            probe_ks=(1, 4, 16),
        ),
        Suite(
            name="full",
            version=5,
            description="The suite of the published tables: every method is fitted three times.",
            fit_seeds=3,
            num_steps=12,
            timestep_power=1.5,
            train_images=128,
            validation_images=12,
            test_pool_images=100,
            test_images_per_concept=32,
            strengths=(0.25, 0.75, 1.5, 3.0),
            effects=(0.25, 0.5),
            # What DiffusionCLIP's authors take: 250 walks of six steps.
            fit_image_steps=1500,
            settings=_tuned(),
            sae_steps=1600,
            probe_train_images=128,
            probe_test_images=80,
            probe_ks=(1, 2, 4, 8, 16, 32),
        ),
        Suite(
            name="quick",
            version=12,
            description="For trying out, on one concept of each data set: it shows what runs and "
            "what fails, and no number.",
            quick=True,
            num_steps=8,
            timestep_power=1.5,
            train_images=32,
            validation_images=3,
            test_pool_images=24,
            test_images_per_concept=4,
            strengths=(0.5, 1.0, 2.0),
            doublings=0,  # nothing is shown that a further strength would serve
            random_draws=2,
            fit_image_steps=32,
            # h_pca's choice of a component does not shrink with the budget.
            settings=_tuned(h_pca={"components": 3, "select_images": 2, "select_steps": 4}),
            sae_steps=60,
            probe_train_images=32,
            probe_test_images=24,
            probe_ks=(1, 16),
        ),
        Suite(
            name="paper",
            version=6,
            description="The papers' counts on the real data sets, for a GPU: 40 evenly spaced "
            "DDIM steps, 32 test images an attribute. CASL chooses its strength by eye for each "
            "concept; here all methods are matched in their effect on validation images.",
            num_steps=40,
            timestep_power=1.0,
            extrapolate=False,
            train_images=1000,
            validation_images=8,
            test_pool_images=300,
            test_images_per_concept=32,
            strengths=(0.25, 0.5, 1.0, 1.5, 2.0, 3.0),
            fit_image_steps=None,
            settings={
                # The authors' scripts, whatever the data set.
                "asyrp": {"t_edit": 500, "t_boost": 200},
                # Its default rate is meant for U-Nets some forty times smaller.
                "diffusionclip": {"learning_rate": 8e-6},
            },
            sae_steps=5000,
            probe_train_images=512,
            probe_test_images=300,
            probe_ks=(1, 2, 4, 8, 16, 32),
        ),
    )
}


REAL_SUITES = frozenset({"paper"})
"""Suites meant for photographs. Not a field: it would change the keys of every other suite."""

DEFAULT_SUITE = "default"

_RENAMED = {"standard": "full"}
"""Suites of before → what does their work now."""


def suite(name: str) -> Suite:
    """The suite of this name. Raises UsageError with the nearest name where there is none."""
    if name in _RENAMED:
        raise UsageError(
            f"suite '{name}' is now '{_RENAMED[name]}', with three fits of every method",
            hint=f"give --suite {_RENAMED[name]}, or leave it out for the shorter 'default'",
        )
    if name not in SUITES:
        raise unknown_name("suite", name, SUITES)
    return SUITES[name]


def domain_kind_of_suite(name: str) -> str:
    """The domain that "all data sets" means in a suite: rendered, unless it is for photographs."""
    return "real" if name in REAL_SUITES else "synth"


class RunConfig(BaseModel):
    """A checked command: every name in it exists.

    Attributes:
        methods: in the order asked for; controls are added by the plan.
        concepts: to edit; None for all that a data set has, or the first few of them if the suite
            says so.
        seed: the run seed, from which every random number derives.
        fit_seeds: fits of every method on every concept, each with random numbers of its own. More
            of them may be added to a folder later.
        device: a torch device, already resolved ("cpu", "cuda:0").
        devices: GPUs, each of which has a process of its own; empty where there is but the one.
        out: the run folder.
        cache: folder of what runs share.
        plugins: Python files that register methods or data sets of the user's own.
        memory_budget: memory for edited images per process, in 10⁹ bytes; None takes a share of
            what is free. Affects speed only, never results; so does `batch_size`.
        batch_size: at most so many images at once, and in a part of an inversion.
        jobs: processes that run cells, each on one thread.
        method_weights: method → folder of weights that somebody else trained for it.
        sae: the dictionary that methods with an SAE share: a registered name, or the absolute path
            of a folder with one that was trained elsewhere.
        sae_hash: of such a folder's weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: tuple[str, ...] = Field(min_length=1)
    datasets: tuple[str, ...] = Field(min_length=1)
    concepts: tuple[str, ...] | None
    suite: Suite
    seed: int = Field(ge=0)
    fit_seeds: PositiveInt = 1
    device: str
    devices: tuple[str, ...] = ()
    out: Path
    cache: Path = Field(default_factory=default_cache)
    plugins: tuple[Path, ...] = ()
    memory_budget: PositiveFloat | None = Field(None, allow_inf_nan=False)
    batch_size: PositiveInt | None = None
    jobs: PositiveInt = 1
    execution: Execution = Execution()
    options: DomainOptions = DomainOptions()
    method_weights: dict[str, Path] = {}
    sae: str = DEFAULT_SAE
    sae_hash: str | None = None

    def key(self) -> dict[str, Any]:
        """What every record of one run folder has in common, as JSON values.

        Methods, data sets and concepts are left out: more of them may be added to a folder by a
        later command. The kind of device is in it, since its arithmetic differs. What the options
        lead to, data and weights, is in the key of every cell by its content.
        """
        key: dict[str, Any] = {
            "suite": self.suite.model_dump(mode="json"),
            "seed": self.seed,
            "device": self.device.split(":")[0],
        }
        return key if self.sae == DEFAULT_SAE else {**key, "sae": [self.sae, self.sae_hash]}


def default_out(
    datasets: tuple[str, ...],
    suite_name: str,
    seed: int,
    shard: Shard | None = None,
    sae: str = DEFAULT_SAE,
) -> Path:
    """The run folder of a command without `--out`: the same command finds it again."""
    part = f"-shard{shard.index}of{shard.count}" if shard is not None else ""
    own = "" if sae == DEFAULT_SAE else f"-{safe_name(Path(sae).name)}"
    names = "+".join(map(safe_name, datasets))
    return Path("runs") / f"{names}-{suite_name}-seed{seed}{own}{part}"
