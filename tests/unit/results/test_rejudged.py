"""What fresh classifiers leave: losses, their bound, and the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from casl_bench.core.errors import InvalidBenchmarkError
from casl_bench.results.rejudged import (
    FILE,
    LOST,
    NOT_REJUDGED,
    Rejudged,
    RejudgedDataset,
    RejudgedMethod,
    read_rejudged,
    write_rejudged,
)


def rejudged(**methods: tuple[float, float]) -> Rejudged:
    own = {n: RejudgedMethod(shipped=s, fresh=f, concepts=8) for n, (s, f) in methods.items()}
    return Rejudged(
        seed=1, steps=1, images=1, datasets={"d": RejudgedDataset(scorers={}, methods=own)}
    )


def test_a_small_loss_is_noise_and_a_large_one_unranks() -> None:
    found = rejudged(honest=(0.6, 0.56), gain=(0.5, 0.6), attack=(0.9, 0.1), weak=(0.06, 0.03))
    assert found.flag("honest") is None and found.flag("gain") is None
    assert found.flag("attack") == LOST and found.loss("attack") == pytest.approx(8 / 9)
    assert found.flag("weak") is None  # less than a twentieth of all images
    assert found.flag("absent") == NOT_REJUDGED and found.fresh("absent") is None


def test_fresh_images_count_where_they_show_more() -> None:
    method = RejudgedMethod(shipped=0.8, fresh=0.8, fresh_split=0.2, concepts=2)
    found = rejudged().model_copy(
        update={"datasets": {"d": RejudgedDataset(scorers={}, methods={"m": method})}}
    )
    assert found.flag("m") == LOST and found.fresh("m") == 0.8


def test_what_is_lost_on_one_data_set_is_not_made_up_for_by_others() -> None:
    """Else an attack on one domain of three would pass, and stay first there."""
    sets = {
        n: rejudged(m=pair).datasets["d"]
        for n, pair in (("a", (0.8, 0.4)), ("b", (0.6, 0.62)), ("c", (0.6, 0.62)))
    }
    found = rejudged().model_copy(update={"datasets": sets})
    assert found.loss("m") == pytest.approx(0.18) and found.flag("m") == LOST
    assert found.flag("m", "a") == LOST and found.flag("m", "b") is None
    assert found.fresh("m", "b") == 0.62 and found.flag("m", "d") == NOT_REJUDGED


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    found = rejudged(a=(0.5, 0.4))
    assert read_rejudged(tmp_path / FILE) is None
    write_rejudged(tmp_path / FILE, found)
    assert read_rejudged(tmp_path / FILE) == found
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(InvalidBenchmarkError, match="re-judging"):
        read_rejudged(tmp_path / FILE)
