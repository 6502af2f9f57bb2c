"""The headline on images whose outcome is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from casl_bench.core.errors import InputError
from casl_bench.metrics.edit_scores import EditScores
from casl_bench.metrics.precise_edits import (
    FULL_FLIP,
    TOLERANCES,
    evaluate_precise_edits,
    image_outcomes,
)

N = 8


def scores(**changes: object) -> EditScores:
    """Eight images whose target, column 0, is off before and on after; nothing else moves."""
    base = np.tile([-2.0, 1.0, -1.0], (N, 1))
    edit = base.copy()
    edit[:, 0] = 2.0
    plain = EditScores(
        base, base, edit, 0, 1, np.ones(3),
        identity=np.ones(N), background=np.zeros(N), factor_worst=np.zeros(N),
        unrelated_identity=0.0, perceptual=np.full(N, 9.0), unrelated_perceptual=1.0,
    )  # fmt: skip
    return replace(plain, **changes)


def value(*panel: EditScores) -> float:
    found = evaluate_precise_edits(panel, seed=0).value
    assert found is not None
    return found


def test_an_exact_edit_is_precise_at_every_tolerance() -> None:
    assert value(scores(), scores()) == 1


def test_an_untouched_image_is_a_failure() -> None:
    assert value(scores(edit=scores().base)) == 0


def test_a_stranger_is_a_failure_by_each_guard_alone() -> None:
    for guard in ("background", "factor_worst"):
        assert value(scores(**{guard: np.ones(N)})) == 0
    assert value(scores(identity=np.zeros(N))) == 0
    moved = scores().edit
    moved[:, 2] += FULL_FLIP
    assert value(scores(edit=moved)) == 0


def test_every_classifier_must_see_the_flip() -> None:
    blind = scores(edit=scores().base)
    assert value(scores(), blind) == 0


def test_the_value_is_the_mean_over_tolerances() -> None:
    drift = 0.25
    met = np.mean([drift <= t for t in TOLERANCES])
    assert value(scores(background=np.full(N, drift))) == pytest.approx(met)


def test_leaving_an_image_alone_never_gains() -> None:
    """Half of the images untouched halve the share, whatever the other half is worth."""
    edit = scores().edit
    edit[::2] = scores().base[::2]
    assert value(scores(edit=edit)) == 0.5


def test_an_image_that_had_the_attribute_does_not_count() -> None:
    base = scores().base
    base[:2, 0] = 1.0
    outcomes = image_outcomes([scores(base=base)])
    assert outcomes.eligible.sum() == N - 2 and not outcomes.precise()[:, :2].any()
    assert evaluate_precise_edits([scores(base=base)], 0).n == N - 2
    nobody = scores(base=-scores().base)
    assert evaluate_precise_edits([nobody], 0).reason is not None


def test_photographs_need_no_factor_and_no_region() -> None:
    """Where no region is known, looks stand in its place."""
    photo = scores(background=None, factor_worst=None, perceptual=np.zeros(N))
    assert set(image_outcomes([photo]).drifts) == {"attributes", "identity", "looks"}
    assert value(photo) == 1
    assert value(replace(photo, perceptual=np.ones(N))) == 0


def test_a_share_has_an_interval_that_holds_it() -> None:
    edit = scores().edit
    edit[0] = scores().base[0]
    found = evaluate_precise_edits([scores(edit=edit)], seed=1)
    assert found.low is not None and found.high is not None and found.value is not None
    assert 0 <= found.low < found.value < found.high <= 1
    whole = evaluate_precise_edits([scores()], seed=1)
    assert whole.low is not None and whole.low < 1


def test_a_panel_is_of_the_same_images_and_target() -> None:
    with pytest.raises(InputError, match="same target"):
        image_outcomes([scores(), scores(sign=-1)])
    with pytest.raises(InputError, match="at least one"):
        image_outcomes([])
    with pytest.raises(InputError, match="tolerance"):
        image_outcomes([scores()]).precise([1.5])
