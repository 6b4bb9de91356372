"""While 200 tasks run, workers are killed again and again: every result is there, and little is run twice."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import KFold
from sklearn.tree import ExtraTreeClassifier

import anyfold as af
from anyfold.testing.probes import note_invocation

X, y = load_iris(return_X_y=True)
FOLDS = af.Folds(X, y, cv=KFold(5, shuffle=True, random_state=0))
N_MODELS, N_WORKERS = 40, 2
N_TASKS = N_MODELS * len(FOLDS)

KILLS = {"multiprocessing": 6, "processes": 4, "loky": 2, "joblib": 2, "dask": 2, "ray": 2}
"""How often a worker is killed; a new one costs more on some than on others."""
BREAKING_AS_A_WHOLE = ("processes", "loky", "joblib")
"""Pools that end all their workers when one has died."""


class Watched(ExtraTreeClassifier):
    """Notes each of its fits, and holds still while the killer takes aim."""

    def __init__(self, folder=None, name="", random_state=None):
        super().__init__(random_state=random_state)
        self.folder = folder
        self.name = name

    def fit(self, X, y):
        note_invocation(Path(self.folder, "fits"), f"{self.name}-{X.sum():.6f}")
        aim = Path(self.folder, "aim")
        for mark in list(aim.iterdir()):
            Path(self.folder, "held", f"{mark.name}-{os.getpid()}").touch()
            while mark.exists():
                time.sleep(0.001)
        return super().fit(X, y)


class Killer(threading.Thread):
    """Kills workers in the midst of a task, at random moments of a run."""

    def __init__(self, folder, n_kills):
        super().__init__(daemon=True)
        self.folder = folder
        self.n_kills = n_kills
        self.n_killed = 0
        self.over = threading.Event()
        for name in ("fits", "aim", "held"):
            (folder / name).mkdir(parents=True)

    def run(self):
        generator = random.Random(self.n_kills)
        longest = N_TASKS // self.n_kills - 2 * N_WORKERS
        until = 0
        for number in range(self.n_kills):
            until += generator.randint(1, longest)
            self.wait_for(lambda until=until: self.n_fits() >= until)
            mark = self.folder / "aim" / str(number)
            mark.touch()
            self.wait_for(lambda number=number: self.held(number))
            os.kill(generator.choice(self.held(number)), signal.SIGKILL)
            self.n_killed += 1
            mark.unlink()

    def n_fits(self):
        return len(list((self.folder / "fits").iterdir()))

    def held(self, number):
        return [int(mark.name.partition("-")[2]) for mark in (self.folder / "held").glob(f"{number}-*")]

    def wait_for(self, condition):
        while not condition():
            if self.over.wait(0.005):
                raise RuntimeError("the run was over before")


def run(folder, backend, **settings):
    models = {f"m{i}": Watched(str(folder), f"m{i}") for i in range(N_MODELS)}
    return af.run_cv(models, FOLDS, backend=backend, random_state=0, **settings)


def scores(result):
    return {name: result[name]["test_score"].tobytes() for name in result}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Scores where nobody is killed."""
    folder = tmp_path_factory.mktemp("alone")
    Killer(folder, n_kills=1)
    return scores(run(folder, "serial"))


@pytest.mark.parametrize("backend", KILLS)
def test_workers_that_are_killed_again_and_again_cost_no_result(backend, tmp_path, alone):
    killer = Killer(tmp_path, KILLS[backend])
    killer.start()
    try:
        result = run(tmp_path, backend, n_jobs=N_WORKERS, retries=KILLS[backend])
    finally:
        killer.over.set()
        killer.join()
    assert killer.n_killed == KILLS[backend]
    assert not result.failures
    n_fits = killer.n_fits()
    started = {mark.name.rpartition(".")[0] for mark in (tmp_path / "fits").iterdir()}
    assert len(started) == N_TASKS
    assert scores(result) == alone
    if backend in BREAKING_AS_A_WHOLE:
        assert N_TASKS + killer.n_killed <= n_fits <= N_TASKS + killer.n_killed * N_WORKERS
    else:
        assert n_fits == N_TASKS + killer.n_killed
