"""When starting workers is worth it, from what was measured."""

import pytest

from anyfold._engine.choose import seconds_left, seconds_until_worth


@pytest.mark.parametrize(
    ("n_left", "taken", "running", "left"),
    [
        (10, [0.5], 0.0, 5.5),
        (10, [0.5], 0.2, 5.3),
        (0, [0.5], 2.0, 2.0),
        (3, [9.0, 1.0, 1.0], 0.0, 4.0),  # the first imports what the others find imported
        (3, [], 1.0, 7.0),
    ],
)
def test_what_is_left_is_estimated_by_the_usual_task(n_left, taken, running, left):
    assert seconds_left(n_left, taken, running) == pytest.approx(left)


@pytest.mark.parametrize("start", [0.03, 1.0])
def test_nothing_is_started_where_nothing_is_left_to_begin(start):
    assert seconds_until_worth(0, [], 100.0, start) is None


@pytest.mark.parametrize(
    ("n_left", "taken", "running", "is_worth"),
    [
        (1000, [0.0001], 0.0, False),
        (1000, [0.01], 0.0, True),
        (1, [0.4], 0.0, False),
        (1, [0.4], 1.2, True),  # late
        (1, [], 0.2, False),
        (1000, [], 0.2, False),  # nobody knows yet, and imports take long
        (1, [], 0.4, True),
        (1000, [], 0.26, True),
    ],
)
def test_workers_are_worth_it_when_more_is_left_than_their_start_takes(n_left, taken, running, is_worth):
    pause = seconds_until_worth(n_left, taken, running, 1.0)
    assert (pause == 0.0) == is_worth


@pytest.mark.parametrize(("n_left", "taken"), [(1, []), (7, []), (1, [0.3]), (2, [0.3, 0.1, 0.2])])
def test_the_answer_holds_when_that_time_has_passed(n_left, taken):
    pause = seconds_until_worth(n_left, taken, 0.0, 1.0)
    assert pause > 0
    assert seconds_until_worth(n_left, taken, pause + 0.002, 1.0) == 0.0
    assert seconds_until_worth(n_left, taken, 0.9 * pause, 1.0) > 0
