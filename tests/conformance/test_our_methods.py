"""Every method that we ship keeps the rules that we ask of a stranger's."""

import pytest

from casl_bench.conformance import NotRun
from casl_bench.conformance.check_method import method_checks
from casl_bench.methods.method import METHODS
from casl_bench.runs.names import load_registries

load_registries()
# A slash is in the names of installed packages' methods: those are theirs to check.
OURS = [name for name in METHODS if "/" not in name]
CHECKS = [
    pytest.param(check, id=f"{name}: {rule}")
    for name in OURS
    for rule, check in method_checks(METHODS.factory(name))
]


def test_the_methods_of_this_repository_are_found():
    controls = {"identity", "oracle", "random_direction", "shuffled", "inverted", "destroy"}
    assert controls | {"pixel_attack", "random_rotation", "casl", "asyrp"} <= set(OURS)
    assert not METHODS.broken


@pytest.mark.parametrize("check", CHECKS)
def test_method(check):
    try:
        check()
    except NotRun as reason:
        pytest.skip(str(reason))
