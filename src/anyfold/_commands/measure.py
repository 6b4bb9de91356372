"""What one backend costs here, measured in a process of its own: ``python -m anyfold._commands.measure``.

Everything is measured through `anyfold.run_cv`, as it is met in real work. Tasks are no fits but take a given
time of a core, in code that lets other threads run.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

import anyfold as af
from anyfold.executors.base import Executor

__all__ = ["LENGTHS", "MANY", "MEGABYTES", "N_TASKS", "Spin", "measure"]

LENGTHS = (0.0, 0.0003, 0.001, 0.003, 0.01)
"""Seconds that tasks take."""
N_TASKS = 64
MANY = 5
MEGABYTES = 32
BLOCK = bytes(1 << 15)


class Spin(BaseEstimator):  # type: ignore[misc]
    """Takes so many seconds of a core."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def fit(self, X: Any, y: Any = None) -> Spin:
        """Compute digests until the time is over: that lets go of the interpreter's lock, as numpy does."""
        end = time.thread_time() + self.seconds
        while self.seconds and time.thread_time() < end:
            hashlib.sha256(BLOCK)
        return self

    def score(self, X: Any, y: Any = None) -> float:
        """Return nothing of interest."""
        return 0.0


def measure(
    backend: str, n_jobs: int, lengths: Sequence[float], repeats: int, seconds: float
) -> dict[str, Any]:
    """Measure one backend; each figure is a list of seconds, one for each repetition.

    Parameters
    ----------
    backend : str
        Its name.
    n_jobs : int
        Number of workers.
    lengths : sequence of float
        Seconds that tasks take.
    repeats : int
        How often everything is measured that can be measured again, at most.
    seconds : float
        After so many nothing is begun again. Each repetition goes through everything, so that work that comes
        and goes on the machine falls on all figures alike.

    Returns
    -------
    dict
        ``workers``; ``start``, once; ``few`` and ``many`` empty tasks (`N_TASKS`, and `MANY` times as many);
        ``data``, one empty task per worker with `MEGABYTES` that it has not seen, and ``no_data``; ``runs``,
        by length, of `N_TASKS` tasks.
    """
    y = np.zeros(200)
    small = np.zeros((200, 1))
    large = np.zeros((4000, MEGABYTES * 125_000 // 4000))
    with af.get_executor("serial") as executor:
        _run(executor, 1, 0.0, small, y)  # what is imported in this process is no cost of the backend
    first = time.perf_counter()
    with af.get_executor(backend, n_jobs) as executor:
        width = getattr(executor, "max_workers", None) or 1

        def run(n_tasks: int, seconds: float = 0.0, X: Any = small) -> float:
            return _run(executor, n_tasks, seconds, X, y)

        run(width)
        cold = time.perf_counter() - first
        run(N_TASKS)  # now every worker has been used
        figures: dict[str, list[float]] = {"few": [], "many": [], "no_data": [], "data": []}
        runs: dict[str, list[float]] = {str(length): [] for length in lengths}
        begun = time.perf_counter()
        for n_done in range(repeats):
            if n_done and time.perf_counter() - begun > seconds:
                break
            figures["few"].append(run(N_TASKS))
            figures["many"].append(run(MANY * N_TASKS))
            figures["no_data"].append(run(width))
            figures["data"].append(run(width, 0.0, large))
            for length in lengths:
                runs[str(length)].append(run(N_TASKS, length))
        start = max(0.0, cold - statistics.median(figures["no_data"]))
        return {"workers": width, "start": [start], **figures, "runs": runs}


def _run(executor: Executor, n_tasks: int, seconds: float, X: Any, y: Any) -> float:
    half = len(X) // 2
    split = np.arange(half), np.arange(half, len(X))
    folds = af.Folds(X, y if len(y) == len(X) else None, cv=[split] * n_tasks)  # new: its data is sent again
    started = time.perf_counter()
    af.run_cv(Spin(seconds), folds, backend=executor, random_state=0, progress=False)
    return time.perf_counter() - started


def main() -> None:
    """Measure what standard input asks for and print it."""
    asked = json.load(sys.stdin)
    print(json.dumps(measure(**asked)), flush=True)  # noqa: T201


if __name__ == "__main__":
    # Workers must find the class of the tasks where it can be imported, not in this script.
    from anyfold._commands import measure as importable

    importable.main()
