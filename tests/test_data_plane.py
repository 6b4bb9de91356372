"""Data is published once for any number of tasks, and tasks are small."""

import gc
import os
from collections import defaultdict
from concurrent.futures import Executor
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.model_selection import ShuffleSplit

import anyfold as af
from anyfold.errors import MemoryPressureWarning

MB = 2**20


class Meter(BaseEstimator):
    """Writes down how much of the published memory this worker accounts for."""

    def __init__(self, folder=None, number=0):
        self.folder = folder
        self.number = number

    def fit(self, X, y=None):
        published = defaultdict(int)
        inside = False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            field, _, value = line.partition(":")
            if "-" in field:  # the head of a mapping
                inside = "anyfold" in line
            elif inside and field in ("Pss", "Rss", "Anonymous"):
                published[field] += int(value.split()[0]) * 1024
        text = f"{published['Pss']} {published['Rss']} {published['Anonymous']}"
        (Path(self.folder) / f"{os.getpid()}-{self.number}-{len(X)}").write_text(text)
        return self

    def score(self, X, y=None):
        return float(len(X))


class Weighing(Executor):
    """Passes everything on and weighs what is sent with each unit."""

    isolation = "process"

    def __init__(self, executor):
        self.executor = executor
        self.capabilities = executor.capabilities
        self.max_workers = executor.max_workers
        self.weights = []
        self.n_leaves = 0

    def submit(self, fn, /, *args, **kwargs):
        self.weights.append(len(cloudpickle.dumps((fn, args, kwargs))))
        self.n_leaves += len(args[2])
        return self.executor.submit(fn, *args, **kwargs)

    def stop_running(self):
        self.executor.stop_running()

    def shutdown(self, wait=True, *, cancel_futures=False):
        self.executor.shutdown(wait, cancel_futures=cancel_futures)


def numbers():
    return np.random.default_rng(0).random((262_144, 100))


def frame_with_text():
    frame = pd.DataFrame(
        np.random.default_rng(0).random((131_072, 180)), columns=[f"c{i}" for i in range(180)]
    )
    frame["text"] = np.resize(np.array(["one", "twenty-two", "three hundred and thirty-three"]), len(frame))
    return frame


@pytest.mark.parametrize("make", [numbers, frame_with_text])
def test_numeric_pages_exist_once_and_tasks_are_small(make, tmp_path):
    X = make()
    size = 200 * MB if isinstance(X, np.ndarray) else 180 * MB
    folds = af.Folds(X, cv=ShuffleSplit(4, train_size=0.2, test_size=0.01, random_state=0))
    models = {f"m{i}": Meter(str(tmp_path), i) for i in range(5)}
    with af.get_executor("multiprocessing", n_jobs=2) as executor:
        weighing = Weighing(executor)
        result = af.run_cv(models, folds, backend=weighing)
    assert not result.failures
    assert weighing.n_leaves == 20
    assert max(weighing.weights) < 2000

    last = {}
    for path in sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        last[path.name.partition("-")[0]] = [int(part) for part in path.read_text().split()]
    assert len(last) == 2  # two workers
    assert sum(rss for _, rss, _ in last.values()) > 1.5 * size  # both have read all of it
    assert sum(pss for pss, _, _ in last.values()) < 1.15 * size  # yet it is there once
    assert sum(copied for _, _, copied in last.values()) == 0


def test_data_is_not_sent_again_to_the_same_executor(tmp_path, monkeypatch):
    from anyfold._engine import sharing

    published = []
    real = sharing.publish
    monkeypatch.setattr(
        sharing, "publish", lambda obj, **kw: published.append(type(obj).__name__) or real(obj, **kw)
    )
    folds = af.Folds(np.random.default_rng(0).random((100, 3)), cv=3)
    with af.get_executor("multiprocessing", n_jobs=1) as executor:
        for _ in range(3):
            af.run_cv(Meter(str(tmp_path)), folds, backend=executor)
    assert published.count("FoldData") == 1
    assert published.count("Job") == 3


def test_slices_that_cannot_fit_are_warned_of_with_figures(monkeypatch, tmp_path):
    from anyfold._data import slices

    monkeypatch.setattr(slices, "available_memory", lambda: 1000)
    folds = af.Folds(np.zeros((100, 3)), cv=2)
    with pytest.warns(MemoryPressureWarning, match=r"2 workers need .* each .* available: set n_jobs=1"):
        af.run_cv(Meter(str(tmp_path)), folds, n_jobs=2)


def test_published_data_goes_with_its_folds():
    def published():
        gc.collect()
        links = [link for link in Path("/proc/self/fd").iterdir() if link.exists()]
        return [link for link in links if "anyfold" in str(link.readlink())]

    before = len(published())
    folds = af.Folds(np.random.default_rng(0).random((100, 3)), cv=2)
    af.run_cv(Mean(), folds, backend="multiprocessing", n_jobs=1)
    assert len(published()) == before + 1
    del folds
    assert len(published()) == before


class Mean(BaseEstimator):
    def fit(self, X, y=None):
        return self

    def score(self, X, y=None):
        return X.mean()
