"""
A log of what happens
=====================

What happens during a run is written to a file, a line of JSON for each event. Any logger can be fed in this
way. Each callback is called in the thread that called `run_cv`, so that it needs no lock; each line is
complete when the next task begins, so that others can read along::

    python examples/log_events.py events.jsonl
    tail -f events.jsonl
"""

import json
import sys
import time
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import anyfold as af
from anyfold.events import Event, RunStarted, TaskFinished, TaskStarted


class JsonLines:
    """A callback that writes events to a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)  # by lines; what earlier runs have written stays
        self.n_written = 0

    def __call__(self, event: Event) -> None:
        """Write one line."""
        self.n_written += 1
        line = {"time": time.time(), "event": type(event).__name__, **self._details(event)}
        self._file.write(json.dumps(line) + "\n")

    def _details(self, event: Event) -> dict[str, object]:
        match event:
            case RunStarted(n_tasks, n_workers, n_taken):
                return {"n_tasks": n_tasks, "n_workers": n_workers, "n_taken": n_taken}
            case TaskStarted(key, attempt):
                return {"model": key.model, "fold": key.fold, "attempt": attempt}
            case TaskFinished(outcome):
                scores, place, failure = outcome.value, outcome.place, outcome.failure
                return {
                    "model": outcome.key.model,
                    "fold": outcome.key.fold,
                    "seconds": outcome.ended - outcome.started,
                    "test": None if scores is None else dict(scores.test),
                    "error": None if failure is None else f"{failure.type_name}: {failure.message}",
                    "host": None if place is None else place.host,
                    "pid": None if place is None else place.pid,
                }
        return {}


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "events.jsonl")
    X, y = load_breast_cancer(return_X_y=True)
    models = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()),
        "tree": DecisionTreeClassifier(),
    }
    log = JsonLines(path)
    result = af.run_cv(models, af.Folds(X, y), scoring=["accuracy"], random_state=0, callbacks=[log])
    print(result)
    print(f"\n{log.n_written} events of {len(models) * result.n_folds} tasks were added to {path}")
