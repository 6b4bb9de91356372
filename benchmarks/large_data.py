"""Eight ridge models over 800 MB: time, and the peak memory of the whole process tree."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from contest import Contender, Contest, main
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold

import anyfold as af

N_ROWS, N_COLUMNS = 1_000_000, 100
ALPHAS = list(np.logspace(-2, 4, 8))


def data() -> tuple[Any, Any]:
    """Return rows and a target that follows from them."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N_ROWS, N_COLUMNS))
    return X, X @ rng.standard_normal(N_COLUMNS) + rng.standard_normal(N_ROWS)


def theirs(X: Any, y: Any, n_jobs: int | None) -> None:
    """Search with scikit-learn."""
    GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=KFold(5), refit=False, n_jobs=n_jobs).fit(X, y)


def ours(X: Any, y: Any, backend: str) -> None:
    """Compare the same models with anyfold."""
    models = {f"alpha {alpha:g}": Ridge(alpha) for alpha in ALPHAS}
    result = af.run_cv(models, af.Folds(X, y, cv=KFold(5)), backend=backend, n_jobs=2)
    assert not result.failures


RUNS: dict[str, Callable[[Any, Any], None]] = {
    "scikit-learn, serial": partial(theirs, n_jobs=None),
    "scikit-learn, n_jobs=2": partial(theirs, n_jobs=2),
    "anyfold, multiprocessing": partial(ours, backend="multiprocessing"),
    "anyfold, loky": partial(ours, backend="loky"),
    "anyfold, threads": partial(ours, backend="threads"),
}


class Peak(threading.Thread):
    """Watches the proportional memory (PSS) of this process and all below it, five times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes = 0
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.2):
            own = psutil.Process()
            self.bytes = max(self.bytes, sum(map(_pss, [own, *own.children(recursive=True)])))

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self.bytes


def _pss(process: psutil.Process) -> int:
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return 1024 * int(rollup.partition("\nPss:")[2].split()[0])


def measured(name: str, memory: bool) -> float:
    """Return the seconds, or the peak in gigabytes, of a fresh interpreter that has the data already."""
    command = [sys.executable, __file__, "--in-here", name]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(out[memory])


def contest(memory: bool) -> Contest:
    """Return the contest of time, or of memory."""
    what = "peak memory of the process tree, in GB" if memory else "seconds"
    peers = [name for name in RUNS if name == "scikit-learn, n_jobs=2" or not memory]
    return Contest(
        f"1,000,000 x 100 float64 (0.8 GB), eight Ridge, five folds: {what}",
        [
            Contender(name, partial(measured, name, memory), ours=name.startswith("anyfold"))
            for name in RUNS
            if name in peers or name.startswith("anyfold")
        ],
        target=0.8 if memory else 0.65,
        tells_seconds=True,
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--in-here"]:
        X, y = data()
        peak, begun = Peak(), time.perf_counter()
        RUNS[sys.argv[2]](X, y)
        print(time.perf_counter() - begun, peak.stop() / 1e9)
        sys.stdout.flush()
        os._exit(0)
    else:
        main({"time": partial(contest, False), "memory": partial(contest, True)}, __doc__)
