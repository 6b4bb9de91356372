"""Finished work is never done again."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from tests.backends import BACKENDS

import anyfold as af
from anyfold.errors import JournalError
from anyfold.events import TaskStarted

X, y = load_iris(return_X_y=True)
MODELS = {"tree": DecisionTreeClassifier(), "logit": LogisticRegression(max_iter=300)}


@pytest.fixture
def computed(tmp_path):
    """Runs with a journal and says which tasks were computed."""

    def run(models=MODELS, folds=None, **settings):
        started = []
        note = [lambda event: started.append(event.key) if isinstance(event, TaskStarted) else None]
        settings = {"backend": "serial", "random_state": 0, **settings}
        result = af.run_cv(
            models, folds or af.Folds(X, y, cv=3), journal=tmp_path / "j.sqlite", callbacks=note, **settings
        )
        return result, sorted((key.model, key.fold) for key in started)

    return run


def table(result):
    frame = result.to_frame().drop(columns=["fit_time", "score_time"])
    return [(row[0], row[1], *[float(v).hex() for v in row[2:]]) for row in frame.itertuples(index=False)]


def test_the_same_work_is_taken_from_the_journal(computed):
    first, tasks = computed()
    assert len(tasks) == 6
    second, tasks = computed()
    assert tasks == []
    assert table(second) == table(first)
    assert second.to_frame().equals(first.to_frame())  # times included
    assert len(second.journal.taken) == 6
    assert first.journal.taken == frozenset()


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_backend_goes_on_where_one_stopped(computed, backend):
    first, _ = computed({"tree": MODELS["tree"]})
    second, tasks = computed(backend=backend, **({} if backend == "serial" else {"n_jobs": 2}))
    assert tasks == [("logit", 0), ("logit", 1), ("logit", 2)]
    assert table(second)[:3] == table(first)


def test_names_and_places_do_not_matter_and_content_does(computed):
    computed()
    _, tasks = computed({"renamed": MODELS["logit"], "tree": MODELS["tree"]})
    assert tasks == []
    _, tasks = computed({"tree": DecisionTreeClassifier(max_depth=2)})
    assert len(tasks) == 3
    _, tasks = computed(random_state=1)
    assert len(tasks) == 6
    _, tasks = computed(folds=af.Folds(X + 1, y, cv=3))
    assert len(tasks) == 6
    _, tasks = computed(scoring="f1_macro")
    assert len(tasks) == 6


def test_without_a_random_state_the_same_script_finds_its_work(computed):
    first, _ = computed(random_state=None)
    second, tasks = computed(random_state=None)
    assert tasks == []
    assert first.random_state == second.random_state
    assert table(first) == table(second)


def test_estimators_and_predictions_are_computed_again_and_the_result_says_so(tmp_path):
    for _ in range(2):
        result = af.run_cv(
            MODELS, af.Folds(X, y, cv=3), journal=tmp_path / "j", backend="serial", return_estimator=True
        )
    assert not result.journal.taken
    assert "estimators are not kept" in result.journal.reason
    assert result["tree"]["estimator"][0].tree_.node_count > 1


class Failing(BaseEstimator):
    def fit(self, X, y):
        raise ArithmeticError("never works")

    def score(self, X, y):
        return 1.0


def test_errors_of_a_model_are_kept_like_any_result(computed):
    for expected in (6, 0):
        with pytest.warns(FitFailedWarning):
            result, tasks = computed({"tree": MODELS["tree"], "bad": Failing()})
        assert len(tasks) == expected
        assert [failure.message for failure in result.failures] == ["never works"] * 3


class Counts(BaseEstimator):
    """Notes how many outcomes are on record when its work begins."""

    def __init__(self, path=None, number=0):
        self.path = path
        self.number = number

    def fit(self, X, y):
        with contextlib.closing(sqlite3.connect(self.path)) as database:
            (found,) = database.execute("SELECT count(*) FROM outcomes").fetchone()
        on_record.append(found)
        self.fitted_ = True
        return self

    def score(self, X, y):
        return 1.0


on_record = []


@pytest.mark.parametrize("shares_steps", [False, True])
def test_in_the_callers_thread_all_that_has_finished_is_on_record_before_more_begins(
    shares_steps, computed, tmp_path
):
    models = {f"m{number}": Counts(str(tmp_path / "j.sqlite"), number) for number in range(12)}
    if shares_steps:
        models = {name: make_pipeline(StandardScaler(), model) for name, model in models.items()}
    on_record.clear()
    computed(models, af.Folds(X, y, cv=2))
    assert on_record == list(range(24))


class Dies(BaseEstimator):
    def fit(self, X, y):
        os.kill(os.getpid(), signal.SIGKILL)

    def score(self, X, y):
        return 1.0


def test_lost_workers_are_not_kept(computed):
    for expected in (6, 3):
        with pytest.warns(FitFailedWarning):
            _, tasks = computed(
                {"tree": MODELS["tree"], "dies": Dies()}, backend="multiprocessing", n_jobs=1, retries=0
            )
        assert len(tasks) == expected


def test_a_model_whose_content_cannot_be_told_is_computed_and_the_result_says_why(computed):
    class Holds(DecisionTreeClassifier):
        def __init__(self, stream=None):
            super().__init__()
            self.stream = stream

    for _ in range(2):
        result, tasks = computed({"holds": Holds(lambda: eval("1"))})
        assert len(tasks) == 3
    assert "holds" in result.journal.untrusted


def test_a_file_that_is_no_journal_is_refused_before_any_work(tmp_path):
    (tmp_path / "j").write_text("not a database, but long enough to look at " * 10)
    with pytest.raises(JournalError):
        af.run_cv(MODELS, af.Folds(X, y), journal=tmp_path / "j", backend="serial")


SCRIPT = """
    import os, sys, tempfile, threading, time
    from pathlib import Path
    from sklearn.base import BaseEstimator
    from sklearn.datasets import load_iris
    import anyfold as af

    class Slow(BaseEstimator):
        def __init__(self, number=0):
            self.number = number
        def fit(self, X, y):
            time.sleep(0.03)  # the work
            (FOLDER / f"{self.number}-{X[0].sum():.1f}-{os.getpid()}-{time.time_ns()}").touch()
            return self
        def score(self, X, y):
            return self.number + X.mean()

    def search(**settings):
        X, y = load_iris(return_X_y=True)
        models = {f"m{i}": Slow(i) for i in range(12)}
        result = af.run_cv(models, af.Folds(X, y, cv=4), journal=f"{FOLDER}.sqlite", **settings)
        return result.to_frame().drop(columns=["fit_time", "score_time"]).to_string()

    # Each driver is a fork of this process, which has imported all it needs and has no threads.
    with tempfile.TemporaryDirectory() as folder:
        FOLDER = Path(folder)
        search(backend="serial")
    assert threading.active_count() == 1
    for line in sys.stdin:
        FOLDER, settings = eval(line)
        FOLDER = Path(FOLDER)
        if (driver := os.fork()) == 0:
            sys.stdin.close()
            Path(f"{FOLDER}.table").write_text(search(**settings))
            sys.exit()
        print(driver, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(driver, 0)[1]), flush=True)
"""
N_TASKS, N_WORKERS = 48, 2
KILLS = {"multiprocessing": 10, "processes": 3, "loky": 2, "dask": 1}
"""How often the driver is killed; more of it would prove the same of the engine."""


@pytest.fixture(scope="module")
def drivers():
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


@pytest.mark.parametrize("backend", KILLS)
def test_a_driver_killed_again_and_again_ends_with_the_same_table(backend, drivers, tmp_path):
    settings = {"backend": backend, "n_jobs": N_WORKERS}
    if backend in ("multiprocessing", "processes"):
        settings["backend_options"] = {"start_method": "fork"}  # the quickest

    def start(name, settings):
        (tmp_path / name).mkdir(exist_ok=True)
        print((str(tmp_path / name), settings), file=drivers.stdin, flush=True)
        return int(drivers.stdout.readline())

    def n_fits(name):
        return len(list((tmp_path / name).iterdir()))

    def table(name):
        assert int(drivers.stdout.readline()) == 0
        return (tmp_path / f"{name}.table").read_text()

    start("whole", {"backend": "serial"})
    whole = table("whole")
    assert n_fits("whole") == N_TASKS
    generator = random.Random(0)
    for _ in range(KILLS[backend]):
        driver = start("killed", settings)
        until = n_fits("killed") + generator.randint(1, 4)
        deadline = time.monotonic() + 60
        while n_fits("killed") < until:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(driver, signal.SIGKILL)
        assert int(drivers.stdout.readline()) == -signal.SIGKILL
    start("killed", settings)
    assert table("killed") == whole
    assert N_TASKS <= n_fits("killed") <= N_TASKS + KILLS[backend] * N_WORKERS


def test_scores_under_other_names_are_computed_again(computed, tmp_path):
    first, _ = computed({"tree": MODELS["tree"]})
    database = sqlite3.connect(tmp_path / "j.sqlite", isolation_level=None)
    database.execute("""UPDATE outcomes SET scores = replace(scores, '"score"', '"other"') WHERE fold = 1""")
    database.close()
    again, done = computed({"tree": MODELS["tree"]})
    assert done == [("tree", 1)]
    assert again["tree"]["test_score"].tolist() == first["tree"]["test_score"].tolist()
