"""What happens is told to callbacks, and resources reach executors that have them."""

import io
from collections import Counter
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from tests.backends import BACKENDS

import anyfold as af
from anyfold.errors import AnyfoldWarning, InvalidInputError, UnsupportedFeatureError
from anyfold.events import RunFinished, RunStarted, TaskFinished, TaskStarted

X, y = load_iris(return_X_y=True)
MODELS = {"a": DummyClassifier(), "b": DummyClassifier()}


@pytest.mark.parametrize("backend", BACKENDS)
def test_callbacks_are_told_what_happens(backend):
    events = []
    af.run_cv(MODELS, af.Folds(X, y, cv=3), backend=backend, n_jobs=2, callbacks=[events.append])
    assert isinstance(events[0], RunStarted)
    assert events[0].n_tasks == 6
    assert isinstance(events[-1], RunFinished)
    started = [event.key for event in events if isinstance(event, TaskStarted)]
    finished = [event.outcome.key for event in events if isinstance(event, TaskFinished)]
    assert Counter(started) == Counter(finished)
    assert len(set(finished)) == 6
    for key in finished:
        start = next(i for i, e in enumerate(events) if isinstance(e, TaskStarted) and e.key == key)
        end = next(i for i, e in enumerate(events) if isinstance(e, TaskFinished) and e.outcome.key == key)
        assert start < end


def test_a_callback_that_raises_costs_nothing():
    calls = []

    def broken(event):
        calls.append(event)
        raise RuntimeError("broken")

    with pytest.warns(AnyfoldWarning, match="raised RuntimeError: broken; it is not called again"):
        result = af.run_cv(MODELS, af.Folds(X, y, cv=3), backend="serial", callbacks=[broken])
    assert len(calls) == 1
    assert not result.missing


class Placing(Executor):
    """Notes what resources each task asks for."""

    isolation = "thread"
    capabilities = frozenset({"resources"})
    max_workers = 2

    def __init__(self):
        self.pool = ThreadPoolExecutor(2)
        self.asked = Counter()

    def submit(self, fn, /, *args, **kwargs):
        self.asked["nothing"] += len(args[2])
        return self.pool.submit(fn, *args, **kwargs)

    def submit_with_resources(self, resources, fn, /, *args, **kwargs):
        self.asked[tuple(resources.items())] += len(args[2])
        assert {leaf.key.model for leaf in args[2]} == {"b"}
        return self.pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.pool.shutdown(wait, cancel_futures=cancel_futures)


def test_resources_reach_an_executor_that_has_them():
    with Placing() as executor:
        result = af.run_cv(MODELS, af.Folds(X, y, cv=30), backend=executor, resources={"b": {"gpu": 0.5}})
    assert executor.asked == {"nothing": 30, (("gpu", 0.5),): 30}
    assert not result.missing


@pytest.mark.parametrize("backend", BACKENDS)
def test_resources_are_refused_where_there_are_none(backend):
    with pytest.raises(UnsupportedFeatureError, match="places tasks by the resources"):
        af.run_cv(MODELS, af.Folds(X, y), backend=backend, resources={"b": {"gpu": 1}})


def test_resources_of_an_unknown_model_are_refused():
    with pytest.raises(InvalidInputError, match="resources names 'c', which is no model"):
        af.run_cv(MODELS, af.Folds(X, y), resources={"c": {"gpu": 1}})


def test_a_bar_is_drawn_when_asked_for_and_never_into_a_pipe(capsys):
    af.run_cv(MODELS, af.Folds(X, y), backend="serial", progress=True)
    assert "10/10" in capsys.readouterr().err
    af.run_cv(MODELS, af.Folds(X, y), backend="serial")
    assert capsys.readouterr().err == ""


def test_a_bar_shows_by_itself_on_a_terminal_when_the_run_lasts(monkeypatch):
    from anyfold._engine import events

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    af.run_cv(MODELS, af.Folds(X, y), backend="serial")
    assert terminal.getvalue() == ""  # too short
    monkeypatch.setattr(events, "SHORT_RUN", 0.0)
    af.run_cv(MODELS, af.Folds(X, y), backend="serial")
    assert "10/10" in terminal.getvalue()
    af.run_cv(MODELS, af.Folds(X, y), backend="serial", progress=False)
