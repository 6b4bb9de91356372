"""Units are worth their dispatch and leave work for everybody."""

from hypothesis import given
from hypothesis import strategies as st

from anyfold._plan.units import LARGEST_UNIT, WORTH_DISPATCHING, unit_size


def test_a_leaf_is_measured_before_leaves_are_grouped():
    assert unit_size(1000, 2, None) == 1


def test_leaves_worth_a_dispatch_are_not_grouped():
    assert unit_size(1000, 2, WORTH_DISPATCHING) == 1


def test_tiny_leaves_are_grouped():
    assert unit_size(100_000, 2, 1e-5) == LARGEST_UNIT


@given(st.integers(1, 10_000), st.integers(1, 64), st.floats(0, 10))
def test_a_unit_is_never_more_than_half_a_fair_share(n_remaining, n_workers, seconds):
    size = unit_size(n_remaining, n_workers, seconds)
    assert 1 <= size <= max(1, -(-n_remaining // (2 * n_workers)))


@given(st.integers(1, 5_000), st.integers(1, 16), st.floats(0, 0.1))
def test_units_together_are_all_there_is(n_leaves, n_workers, seconds):
    remaining = n_leaves
    while remaining:
        size = unit_size(remaining, n_workers, seconds)
        assert 0 < size <= remaining
        remaining -= size
