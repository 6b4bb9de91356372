"""How a grid of outcomes becomes tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anyfold.results.grid import OutcomeGrid

if TYPE_CHECKING:
    import pandas as pd

NAN = float("nan")

__all__ = ["cross_validate_dict", "ranked_models", "slowest_frame", "summary_frame", "tidy_frame"]


def ranked_models(grid: OutcomeGrid, metric: str) -> tuple[str, ...]:
    """Return the names of the models, the best first; equal ones stay as they were given."""
    return tuple(grid.models[row] for row in np.argsort(grid.ranks(metric), kind="stable"))


def summary_frame(grid: OutcomeGrid, metrics: Sequence[str], *, with_train: bool) -> pd.DataFrame:
    """Return mean, standard deviation and rank per model and metric, ordered by the first metric."""
    import pandas as pd

    columns: dict[tuple[str, str], NDArray[Any]] = {}
    for metric in metrics:
        means, stds = grid.mean_and_std(metric)
        columns |= {(metric, "mean"): means, (metric, "std"): stds, (metric, "rank"): grid.ranks(metric)}
        if with_train:
            means, stds = grid.mean_and_std(metric, train=True)
            columns |= {(f"train_{metric}", "mean"): means, (f"train_{metric}", "std"): stds}
    if not grid.present().all():
        columns["n_folds", ""] = grid.present().sum(axis=1)
    frame = pd.DataFrame(columns, index=pd.Index(grid.models, name="model"))
    frame.columns.names = ["metric", "statistic"]
    return frame.loc[list(ranked_models(grid, metrics[0]))]


def tidy_frame(grid: OutcomeGrid, metrics: Sequence[str], *, with_train: bool) -> pd.DataFrame:
    """Return one row per model and fold."""
    import pandas as pd

    columns: dict[str, Any] = {
        "model": [model for model in grid.models for _ in range(grid.n_folds)],
        "fold": np.tile(np.arange(grid.n_folds), len(grid.models)),
    }
    columns |= {metric: grid.scores(metric).ravel() for metric in metrics}
    if with_train:
        columns |= {f"train_{metric}": grid.scores(metric, train=True).ravel() for metric in metrics}
    columns["fit_time"] = [time for model in grid.models for time in grid.times(model, "fit_time")]
    columns["score_time"] = [time for model in grid.models for time in grid.times(model, "score_time")]
    return pd.DataFrame(columns)


def slowest_frame(grid: OutcomeGrid, n: int) -> pd.DataFrame:
    """Return the tasks that took longest, with where they ran and what became of them."""
    import pandas as pd

    rows = []
    for outcome in grid:
        value, place = outcome.value, outcome.place
        fit_time, score_time = (NAN, NAN) if value is None else (value.fit_time, value.score_time)
        took = outcome.ended - outcome.started if place is not None else fit_time + score_time
        rows.append(
            {
                "model": outcome.key.model,
                "fold": outcome.key.fold,
                "seconds": took,
                "fit_time": fit_time,
                "score_time": score_time,
                "host": None if place is None else place.host,
                "pid": None if place is None else place.pid,
                "attempts": outcome.attempts,
                "failed": outcome.failure is not None,
            }
        )
    columns = ["model", "fold", "seconds", "fit_time", "score_time", "host", "pid", "attempts", "failed"]
    frame = pd.DataFrame(rows, columns=columns).astype({"pid": "Int64"})  # it may be unknown
    return frame.sort_values("seconds", ascending=False, kind="stable").head(n).reset_index(drop=True)


def cross_validate_dict(
    grid: OutcomeGrid, model: str, metrics: Sequence[str], *, with_train: bool
) -> dict[str, Any]:
    """Return the results of one model under the keys and in the types of scikit-learn's `cross_validate`."""
    answer: dict[str, Any] = {
        "fit_time": np.asarray(grid.times(model, "fit_time")),
        "score_time": np.asarray(grid.times(model, "score_time")),
    }
    if grid.has_estimators(model):
        answer["estimator"] = grid.estimators(model)
    for metric in metrics:
        answer[f"test_{metric}"] = np.asarray(grid.fold_scores(model, metric))
        if with_train:
            answer[f"train_{metric}"] = np.asarray(grid.fold_scores(model, metric, train=True))
    return answer
