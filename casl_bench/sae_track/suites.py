"""How much of everything `casl-bench sae` does."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from casl_bench.core.errors import unknown_name


class TimeRange(BaseModel):
    """Timesteps low <= t < high."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    low: int = Field(ge=0)
    high: int = Field(gt=0)


EARLY = TimeRange(name="t < 400", low=0, high=400)
LATE = TimeRange(name="t ≥ 400", low=400, high=1_000_000)


class SaeSuite(BaseModel):
    """How much. Frozen, unknown fields refused; the whole of it is in every cell's key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: int
    description: str
    quick: bool = False
    run_suite: str  # of the editing track, whose inversions and SAE steps are used
    sites: tuple[str, ...] = ("mid",)
    widths: tuple[int | None, ...] = (None,)  # None is a kind's default
    targets: tuple[int, ...] = (16, 32)  # target L0
    vectors: tuple[int | None, ...] = (None,)  # trained on; None is what `run_suite` has
    # Whether dictionaries are trained on all timesteps, and whether on each range alone
    pooled: bool = True
    per_range: bool = False
    seeds: int = Field(default=1, ge=1)
    acting_seeds: int = Field(default=1, ge=0)  # of these, those whose codes are changed, too
    ranges: tuple[TimeRange, ...] = (EARLY, LATE)
    pair_images: int = Field(ge=2)  # test images that are flipped in every factor
    probe_ks: tuple[int, ...] = (1, 2, 4, 8, 16)
    edit_ks: tuple[int, ...] = (1, 4, 16)
    # Attributes whose latents are interchanged, ablated and steered; None for all
    edit_attributes: int | None = None
    edit_images: int = Field(ge=2)
    strengths: tuple[float, ...] = (2.0, 8.0, 32.0)  # of steering, increasing
    pages: int = 8  # latents with a page of their own


SAE_SUITES: dict[str, SaeSuite] = {
    suite.name: suite
    for suite in (
        SaeSuite(
            name="quick",
            version=2,
            description="For trying out: its numbers mean nothing.",
            quick=True,
            run_suite="quick",
            targets=(32,),
            ranges=(TimeRange(name="all t", low=0, high=1_000_000),),
            pair_images=6,
            probe_ks=(1, 4),
            edit_ks=(1, 16),
            edit_attributes=2,
            edit_images=2,
            strengths=(4.0, 32.0),
            pages=3,
        ),
        SaeSuite(
            name="standard",
            version=2,
            description="The suite of the published table: h, one width, two target L0, two seeds.",
            run_suite="full",
            seeds=2,
            pair_images=16,
            edit_attributes=3,
            edit_images=3,
            strengths=(4.0, 32.0),
        ),
        SaeSuite(
            name="full",
            version=2,
            description="The whole grid: two sites, three widths, three target L0, three seeds.",
            run_suite="full",
            sites=("mid", "up_0"),
            widths=(512, 1024, 2048),
            targets=(8, 16, 32),
            seeds=3,
            acting_seeds=3,
            pair_images=32,
            edit_attributes=4,
            edit_images=6,
            probe_ks=(1, 2, 4, 8, 16, 32),
        ),
        SaeSuite(
            name="sweep",
            version=2,
            description="Chooses the default dictionary: sites, widths, target L0, length and "
            "timesteps of training, read and kept, not acted on.",
            run_suite="full",
            sites=("mid", "up_0"),
            widths=(512, 1024, 2048),
            targets=(16, 32),
            vectors=(409_600, 1_638_400),
            per_range=True,
            acting_seeds=0,
            pair_images=16,
            edit_images=2,
        ),
    )
}


def sae_suite(name: str) -> SaeSuite:
    """The suite of this name. Raises UsageError with the nearest name where there is none."""
    if name not in SAE_SUITES:
        raise unknown_name("suite", name, SAE_SUITES)
    return SAE_SUITES[name]
