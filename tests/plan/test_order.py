"""What takes long is started first, and what begins alike stays together."""

import itertools

import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris

import anyfold as af
from anyfold._plan import order
from anyfold._plan.order import Order
from anyfold._plan.prefix import Layout, layout
from anyfold._plan.task import Outcome, TaskKey
from anyfold.events import TaskStarted

X, y = load_iris(return_X_y=True)


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(order, "_remembered", type(order._remembered)())


def keys(names, n_folds=1):
    return [TaskKey(name, 0, fold) for fold in range(n_folds) for name in names]


def labels(names):
    return {(name, 0): name for name in names}


def drawn(order):
    return "".join(key.model for key in order)


def note(outcomes, key, seconds):
    outcomes[key] = Outcome(key, started=100.0, ended=100.0 + seconds)


NOTHING_SHARED = Layout({}, 0, frozenset())


def test_the_callers_order_is_kept_as_long_as_nothing_is_known():
    assert drawn(Order(keys("cab", 2), NOTHING_SHARED, {}, {}, 4)) == "cabcab"


def test_later_folds_start_with_what_took_long_on_earlier_ones():
    outcomes = {}
    order = iter(Order(keys("abc", 2), NOTHING_SHARED, outcomes, {}, 4))
    for seconds in (1, 9, 3):
        note(outcomes, next(order), seconds)
    assert drawn(order) == "bca"


def test_a_later_run_starts_with_what_took_long_in_an_earlier_one():
    outcomes = {}
    first = Order(keys("abc"), NOTHING_SHARED, outcomes, labels("abc"), 4)
    for key, seconds in zip(first, (1, 2, 9), strict=True):
        note(outcomes, key, seconds)
    order.remember(keys("abc"), outcomes, labels("abc"))
    assert drawn(Order(keys("abc"), NOTHING_SHARED, {}, labels("abc"), 4)) == "cba"
    assert drawn(Order(keys("abc"), NOTHING_SHARED, {}, labels("abc"), 1)) == "abc"


def test_what_is_not_known_is_taken_for_usual():
    outcomes = {}
    first = Order(keys("ab"), NOTHING_SHARED, outcomes, labels("ab"), 4)
    for key, seconds in zip(first, (1, 9), strict=True):
        note(outcomes, key, seconds)
    order.remember(keys("ab"), outcomes, labels("ab"))
    assert drawn(Order(keys("axb"), NOTHING_SHARED, {}, labels("axb"), 4)) == "bxa"


def test_what_has_finished_is_left_out():
    outcomes = {}
    note(outcomes, TaskKey("b", 0, 0), 1)
    order = Order(keys("abc"), NOTHING_SHARED, outcomes, {}, 4)
    assert order.n_left == 2
    assert drawn(order) == "ac"


def test_branches_stay_together_however_long_their_leaves_take():
    """Steps 0 and 1 are the first ones of two branches, whose leaves the caller has mixed."""
    paths = {("a", 0): (0, 5), ("b", 0): (1, 5), ("c", 0): (0, 6), ("d", 0): (1, 6), ("e", 0): (0, 5)}
    shape = layout(paths, 2, 4)
    assert drawn(Order(keys("abcde"), shape, {}, {}, 4)) == "aecbd"
    outcomes = {}
    order = iter(Order(keys("abcde", 2), shape, outcomes, {}, 4))
    seconds = dict(zip("abcde", (1, 20, 7, 2, 3), strict=True))
    for key in itertools.islice(order, 5):
        note(outcomes, key, seconds[key.model])
    assert drawn(order) == "bdcea"


class Sleeps(BaseEstimator):
    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def fit(self, X, y):
        import time

        time.sleep(self.seconds)
        return self

    def score(self, X, y):
        return self.seconds


def test_a_second_run_of_the_same_models_starts_with_the_slow_one():
    models = {"a": Sleeps(), "b": Sleeps(), "c": Sleeps(), "d": Sleeps(), "slow": Sleeps(0.1)}
    folds = af.Folds(X, y, cv=2)
    started = []

    def callback(event):
        if isinstance(event, TaskStarted):
            started.append(event.key.model)

    for _ in range(2):
        result = af.run_cv(models, folds, backend="threads", n_jobs=2, callbacks=[callback])
        assert result["slow"]["test_score"].tolist() == [0.1, 0.1]
        assert list(result) == list(models)
    assert "slow" in started[10:12]  # two are started at once
