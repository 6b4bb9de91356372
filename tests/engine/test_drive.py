"""The loop ends with the right outcomes however an executor behaves."""

import random
import threading
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor

import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.tree import DecisionTreeClassifier

import anyfold as af
from anyfold._mail.messages import LocalAddress
from anyfold.errors import WorkerLostError

X, y = load_iris(return_X_y=True)
MODELS = {f"m{depth}": DecisionTreeClassifier(max_depth=depth) for depth in range(1, 9)}
FOLDS = af.Folds(X, y, cv=5)


@pytest.fixture(scope="module")
def expected():
    return scores(af.run_cv(MODELS, FOLDS, random_state=0, backend="serial"))


def scores(result):
    return {name: result[name]["test_score"].tobytes() for name in result}


class Holding(Executor):
    """Runs work only when it holds so much, and then in an order of its own."""

    isolation = "thread"
    capabilities = frozenset()
    max_workers = 4

    def __init__(self, order):
        self.order = order
        self.held = []
        self.lock = threading.Lock()
        self.thread = ThreadPoolExecutor(1)
        self.sizes = []

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        with self.lock:
            self.held.append((future, fn, args, kwargs))
        self.thread.submit(self.release)
        return future

    def release(self):
        with self.lock:
            held, self.held = self.held, []
        self.sizes.append(len(held))
        for future, fn, args, kwargs in self.order(held):
            future.set_running_or_notify_cancel()
            future.set_result(fn(*args, **kwargs))

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.thread.shutdown(wait)


def shuffled(held):
    return random.Random(0).sample(held, len(held))


@pytest.mark.parametrize("order", [reversed, shuffled], ids=["reversed", "random"])
def test_any_order_of_completion_gives_the_same_outcomes(order, expected):
    with Holding(order) as executor:
        assert scores(af.run_cv(MODELS, FOLDS, random_state=0, backend=executor)) == expected


class Strange(Executor):
    """Runs inline, in a way that a subclass makes strange."""

    isolation = "thread"
    capabilities = frozenset()
    max_workers = 2

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(self.run(fn, *args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future

    def run(self, fn, *args, **kwargs):
        return fn(*args, **kwargs)

    def shutdown(self, wait=True, *, cancel_futures=False):
        pass


class WithoutMail(Strange):
    """A worker that cannot reach the mailbox, as on another host."""

    def run(self, fn, job, unit, leaves, address):
        assert isinstance(address, LocalAddress)
        assert len(leaves) == 1  # nothing could be known of the others if this one were lost
        return fn(job, unit, leaves, None)


def test_outcomes_that_no_mail_brings_come_with_the_unit(expected):
    assert scores(af.run_cv(MODELS, FOLDS, random_state=0, backend=WithoutMail())) == expected


class LosesWithoutAWord(Strange):
    """Most workers reach the mailbox; the one that gets a certain task does not, and dies of it."""

    capabilities = frozenset({"healing"})

    def __init__(self):
        self.lost = []

    def run(self, fn, job, unit, leaves, address):
        if any(str(leaf.key) == "model 'm150', fold 3" for leaf in leaves):
            self.lost.append(len(leaves))
            raise WorkerLostError("gone without a word")
        return fn(job, unit, leaves, address)


def test_a_worker_that_is_lost_without_a_word_costs_only_the_task_that_kills_it():
    executor = LosesWithoutAWord()
    with pytest.warns(FitFailedWarning, match="1 of 1000 tasks failed"):
        result = af.run_cv({f"m{i}": FailsOn() for i in range(200)}, FOLDS, backend=executor, retries=1)
    assert [(failure.model, failure.fold, failure.type) for failure in result.failures] == [
        ("m150", 3, "WorkerLostError")
    ]
    assert executor.lost[0] > 1  # others were lost with it, and were run again


class Twice(Strange):
    """Runs everything twice."""

    def run(self, fn, *args):
        fn(*args)
        return fn(*args)


def test_an_executor_that_runs_work_twice_changes_no_outcome(expected):
    assert scores(af.run_cv(MODELS, FOLDS, random_state=0, backend=Twice())) == expected


class Drops(Strange):
    """Says that work is done that it has not done."""

    def run(self, fn, job, unit, leaves, address):
        if leaves[0].key.model == "m3":
            return 0, ()
        return fn(job, unit, leaves, address)


def test_work_that_was_not_done_is_a_failure_and_never_a_hang():
    with pytest.warns(FitFailedWarning, match="without an outcome"):
        result = af.run_cv(MODELS, FOLDS, random_state=0, backend=Drops())
    assert {failure.model for failure in result.failures} >= {"m3"}
    assert all(failure.stage == "worker" for failure in result.failures)


class Breaks(Strange):
    """Breaks at the third submission."""

    n = 0

    def submit(self, fn, /, *args, **kwargs):
        self.n += 1
        if self.n > 3:
            raise BrokenExecutor("broken for good")
        return super().submit(fn, *args, **kwargs)


def test_an_executor_that_breaks_keeps_what_had_finished():
    with pytest.warns(FitFailedWarning, match="broken for good"):
        result = af.run_cv(MODELS, FOLDS, random_state=0, backend=Breaks())
    assert result["m1"]["test_score"][0] > 0
    assert "does not heal" in result.failures[-1].message
    assert not result.missing


class Cancels(Strange):
    """Cancels what it had accepted."""

    def run(self, fn, *args):
        raise CancelledError


def test_work_that_the_executor_cancels_is_no_hang():
    with pytest.raises(Exception, match="cancelled work that it had accepted"):
        af.run_cv(MODELS, FOLDS, random_state=0, backend=Cancels())


class Refuses(Strange):
    def run(self, fn, *args):
        raise ImportError("no module named 'models'")


def test_work_that_cannot_be_run_at_all_raises_the_reason():
    with pytest.raises(ImportError, match="no module named 'models'") as error:
        af.run_cv(MODELS, FOLDS, random_state=0, backend=Refuses())
    assert any("all 40 tasks failed" in note for note in error.value.__notes__)


class FailsOn(BaseEstimator):
    def __init__(self, label=None):
        self.label = label

    def fit(self, X, y):
        if self.label is not None:
            raise ArithmeticError(self.label)
        return self

    def score(self, X, y):
        return 1.0


@pytest.mark.parametrize("order", [list, reversed, shuffled], ids=["in order", "reversed", "random"])
def test_the_error_that_is_raised_is_the_first_in_task_order(order):
    models = {"fine": FailsOn(), "first": FailsOn("first"), "second": FailsOn("second")}
    with Holding(order) as executor:
        with pytest.raises(ArithmeticError, match="first"):
            af.run_cv(models, FOLDS, backend=executor, error_score="raise")


def test_nothing_more_is_started_after_an_error_that_raises():
    started = []

    class Notes(FailsOn):
        def fit(self, X, y):
            started.append(len(X))
            return super().fit(X, y)

    with pytest.raises(ArithmeticError):
        af.run_cv({"a": Notes(), "b": Notes("bad")}, FOLDS, backend="serial", error_score="raise")
    assert len(started) == 2


def test_tiny_tasks_are_grouped():
    with Holding(list) as executor:
        models = {f"m{i}": FailsOn() for i in range(200)}
        result = af.run_cv(models, FOLDS, backend=executor)
    assert len(result.to_frame()) == 1000
    assert sum(executor.sizes) < 500


def test_two_runs_at_once_share_an_executor(expected):
    found = {}
    with af.get_executor("multiprocessing", n_jobs=2) as executor:

        def run(name):
            found[name] = scores(af.run_cv(MODELS, FOLDS, random_state=0, backend=executor))

        threads = [threading.Thread(target=run, args=[number]) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [found[number] == expected for number in range(3)] == [True] * 3
