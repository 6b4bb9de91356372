"""How scores over folds become a mean, a spread and a rank: pure functions, as scikit-learn computes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from anyfold._plan.task import FoldScores, Outcome

__all__ = ["fold_score", "mean_and_std", "rank_by_mean"]


def fold_score(outcome: Outcome | None, metric: str, error_score: float, *, train: bool = False) -> float:
    """Return one score of one fold.

    Parameters
    ----------
    outcome : Outcome or None
        What became of the task; None where it never ran.
    metric : str
        Name of the metric.
    error_score : float
        The score of a task that failed.
    train : bool, default=False
        Whether to return the score on the training data instead of the test data.

    Returns
    -------
    float
        The score exactly as the scorer gave it, ``error_score`` where the task failed before this
        score, and NaN where the task never ran.

    Examples
    --------
    >>> from anyfold._plan.task import TaskKey
    >>> scores = FoldScores(test={"accuracy": 0.75}, train=None, fit_time=0.1, score_time=0.1)
    >>> fold_score(Outcome(TaskKey("logit", 0, 0), scores), "accuracy", error_score=0.0)
    0.75
    >>> fold_score(None, "accuracy", error_score=0.0)
    nan
    """
    if outcome is None:
        return float("nan")
    value = outcome.value
    scores = (value.train if train else value.test) if isinstance(value, FoldScores) else None
    if outcome.failure is not None:
        return error_score if scores is None else scores.get(metric, error_score)
    if scores is None:
        kind = "train" if train else "test"
        raise TypeError(f"{outcome.key} succeeded without {kind} scores: its value is {value!r}")
    return scores[metric]


def mean_and_std(
    scores: NDArray[np.float64], present: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average scores over the folds that ran.

    Bit for bit what scikit-learn's searches compute as ``mean_test_score`` and ``std_test_score``
    where all folds ran: the standard deviation is that of the population (``ddof=0``), and a NaN
    on any fold makes both NaN, so that a failed fold cannot pass unseen.

    Parameters
    ----------
    scores : ndarray of shape (n_models, n_folds)
        One row per model.
    present : ndarray of shape (n_models, n_folds)
        False where a fold never ran; it is left out.

    Returns
    -------
    means, stds : ndarray of shape (n_models,)
        NaN for a model of which no fold ran.

    Examples
    --------
    >>> scores = np.array([[0.5, 1.0], [0.25, np.nan]])
    >>> [values.tolist() for values in mean_and_std(scores, np.array([[True, True], [True, False]]))]
    [[0.75, 0.25], [0.25, 0.0]]
    """
    means = np.full(len(scores), np.nan)
    stds = np.full(len(scores), np.nan)
    for i, (row, there) in enumerate(zip(scores, present, strict=True)):
        values = row[there]
        if values.size:
            with np.errstate(invalid="ignore", over="ignore"):  # infinite scores have no spread: NaN
                means[i] = np.average(values)
                stds[i] = np.sqrt(np.average((values - means[i]) ** 2))
    return means, stds


def rank_by_mean(means: NDArray[np.float64]) -> NDArray[np.int32]:
    """Rank means, the highest first, as scikit-learn's ``rank_test_score`` does.

    Equal means share the lowest rank of their group; NaN comes last; where all are NaN all are 1.

    Parameters
    ----------
    means : ndarray of shape (n_models,)
        Mean scores; greater is better.

    Returns
    -------
    ndarray of shape (n_models,)
        Ranks from 1.

    Examples
    --------
    >>> rank_by_mean(np.array([0.5, np.nan, 0.75, 0.5])).tolist()
    [2, 4, 1, 2]
    """
    descending = -np.nan_to_num(means, nan=-np.inf)  # infinite means become finite: NaN is last alone
    return (np.searchsorted(np.sort(descending), descending, side="left") + 1).astype(np.int32)
