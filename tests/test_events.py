"""What happens is told to callbacks, and resources reach executors that have them."""

import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import FitFailedWarning
from tests.backends import BACKENDS
from tests.drivers import eventually

import anyfold as af
from anyfold._engine import progress
from anyfold.errors import AnyfoldWarning, InvalidInputError, UnsupportedFeatureError
from anyfold.events import RunFinished, RunStarted, TaskFinished, TaskStarted
from anyfold.model_selection import GridSearchCV

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


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def on_terminal(monkeypatch):
    """Makes standard error a terminal; in the test itself, since pytest has its own when a test begins."""

    def begin(short_run):
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(progress, "SHORT_RUN", short_run)
        return terminal

    monkeypatch.delenv("CI", raising=False)
    return begin


class Waiting(DummyClassifier):
    """Goes on when the bar shows."""

    def fit(self, X, y):
        eventually(lambda: "0/2 tasks" in sys.stderr.getvalue(), "no bar before a task has finished")
        return super().fit(X, y)


def test_a_bar_shows_by_itself_on_a_terminal_when_work_lasts(on_terminal):
    terminal = on_terminal(short_run=60.0)
    af.run_cv(MODELS, af.Folds(X, y), backend="serial")
    assert terminal.getvalue() == ""
    terminal = on_terminal(short_run=0.001)
    af.run_cv(Waiting(), af.Folds(X, y, cv=2), backend="serial")
    assert re.search(r"2/2 tasks, \d+:\d\d in all, best score 0\.3333 \(waiting\)", terminal.getvalue())


@pytest.mark.parametrize("variable", ["CI", "ANYFOLD_PROGRESS"])
def test_no_bar_shows_where_it_is_not_wanted(variable, on_terminal, monkeypatch):
    terminal = on_terminal(short_run=0.0)
    monkeypatch.setenv(variable, {"CI": "true", "ANYFOLD_PROGRESS": "false"}[variable])
    af.run_cv(MODELS, af.Folds(X, y, cv=2), backend="serial")
    assert terminal.getvalue() == ""


def test_runs_inside_tasks_draw_no_bars_of_their_own(on_terminal):
    terminal = on_terminal(short_run=0.0)

    class Nested(DummyClassifier):
        def fit(self, X, y):
            af.run_cv(DummyClassifier(), af.Folds(X, y, cv=7))
            return super().fit(X, y)

    af.run_cv(Nested(), af.Folds(X, y, cv=2), backend="serial")
    assert "2/2 tasks" in terminal.getvalue()
    assert "/7 tasks" not in terminal.getvalue()


def test_progress_that_is_asked_for_goes_into_a_pipe_as_lines(capsys):
    models = MODELS | {"broken": DummyClassifier(strategy="no such")}
    with pytest.warns(FitFailedWarning):
        af.run_cv(models, af.Folds(X, y), backend="serial", progress=True)
    *_, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"anyfold: 15/15 tasks, 5 failed, \d+:\d\d in all, best score 0\.3333 \(a\)", last)
    af.run_cv(MODELS, af.Folds(X, y), backend="serial")
    assert capsys.readouterr().err == ""


def test_searches_show_progress_and_tell_callbacks(capsys):
    events = []
    search = GridSearchCV(
        DummyClassifier(), {"strategy": ["prior", "uniform"]}, cv=2, backend="serial", progress=True
    )
    with af.config_context(callbacks=[events.append]):
        search.fit(X, y)
    assert re.search(r"anyfold: 4/4 tasks, \d+:\d\d in all, best score ", capsys.readouterr().err)
    finished = {event.outcome.key for event in events if isinstance(event, TaskFinished)}
    assert {(key.candidate, key.fold) for key in finished} == {(1, 0), (1, 1), (2, 0), (2, 1)}


def test_what_a_journal_had_is_shown_and_told_apart(tmp_path, capsys):
    events = []
    how = {"backend": "serial", "journal": tmp_path / "journal.sqlite", "random_state": 0}
    af.run_cv({"a": MODELS["a"]}, af.Folds(X, y), **how)
    models = MODELS | {"b": DummyClassifier(strategy="uniform")}
    af.run_cv(models, af.Folds(X, y), progress=True, callbacks=[events.append], **how)
    assert events[0] == RunStarted(n_tasks=5, n_workers=1, n_taken=5)
    assert "10/10 tasks, 5 from the journal, " in capsys.readouterr().err


def test_a_serial_run_tells_of_each_task_when_it_has_finished():
    told = []

    class Noting(DummyClassifier):
        def fit(self, X, y):
            told.append("fit")
            return super().fit(X, y)

    def note(event):
        if isinstance(event, TaskFinished):
            told.append("finished")

    af.run_cv(Noting(), af.Folds(X, y, cv=2), backend="serial", callbacks=[note])
    assert told == ["fit", "finished"] * 2


def test_the_time_left_is_that_of_the_tasks_so_far():
    state = progress.State(progress.Standing([]), n_tasks=10, n_taken=2, n_done=2, n_workers=1, began=100.0)
    assert state.seconds_left(now=101.0) is None
    state.working, state.n_done, state.heard = 102.0, 6, 111.0  # 4.5 tasks in 9 seconds, 3.5 are left
    assert state.seconds_left(now=111.0) == 7.0
    assert state.seconds_left(now=113.0) == 5.0
    assert state.seconds_left(now=200.0) == 0.0


def test_the_example_writes_a_line_of_json_for_each_event(tmp_path):
    example = Path(__file__).parent.parent / "examples" / "log_events.py"
    log = tmp_path / "events.jsonl"
    log.write_text('{"event": "of an earlier run"}\n')
    done = subprocess.run(
        [sys.executable, example, log],
        env=os.environ | {"ANYFOLD_BACKEND": "threads"},
        capture_output=True,
        text=True,
        check=True,
    )
    earlier, *lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert earlier == {"event": "of an earlier run"}
    assert lines[0] | {"event": "RunStarted", "n_tasks": 10} == lines[0]
    assert lines[-1]["event"] == "RunFinished"
    finished = [line for line in lines if line["event"] == "TaskFinished"]
    assert {(line["model"], line["fold"]) for line in finished} == {
        (model, fold) for model in ("logistic regression", "tree") for fold in range(5)
    }
    assert all(0 < line["test"]["accuracy"] <= 1 and line["pid"] > 0 for line in finished)
    assert f"{len(lines)} events of 10 tasks" in done.stdout
