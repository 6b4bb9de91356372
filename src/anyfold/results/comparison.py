"""Whether models differ by more than the folds do: paired differences and their tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["adjusted", "comparison_frame", "corrected_t"]

CONFIDENCE = 0.95


def corrected_t(differences: NDArray[np.float64], test_to_train: float) -> tuple[float, float, float]:
    """Return the corrected resampled t-test of paired differences.

    The scores of folds are no independent samples, since their training sets overlap: the variance of
    their mean is ``(1 / n + n_test / n_train) * var`` rather than ``var / n`` [1]_.

    Parameters
    ----------
    differences : ndarray of shape (n_folds,)
        Score of one model minus score of the other, on each fold.
    test_to_train : float
        Number of test samples divided by number of training samples.

    Returns
    -------
    t, p_value, margin : float
        The statistic, with ``n_folds - 1`` degrees of freedom; the probability of one at least as far from
        zero if the models were equal; and half the width of the 95 % confidence interval of the mean
        difference. NaN for fewer than two folds.

    References
    ----------
    .. [1] C. Nadeau and Y. Bengio, "Inference for the Generalization Error", Machine Learning 52, 239-281
       (2003), doi:10.1023/A:1024068626366.

    Examples
    --------
    >>> t, p_value, margin = corrected_t(np.array([0.5, 0.25, 0.75, 0.5]), test_to_train=1 / 3)
    >>> round(t, 3), round(p_value, 3), round(margin, 3)
    (3.207, 0.049, 0.496)
    """
    from scipy import stats

    n = len(differences)
    if n < 2:
        return float("nan"), float("nan"), float("nan")
    mean, variance = float(np.mean(differences)), float(np.var(differences, ddof=1))
    error = float(np.sqrt((1 / n + test_to_train) * variance))
    margin = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    if error == 0:
        return (0.0, 1.0, 0.0) if mean == 0 else (float(np.copysign(np.inf, mean)), 0.0, 0.0)
    t = mean / error
    return t, float(2 * stats.t.sf(abs(t), n - 1)), margin


def adjusted(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values that hold for all comparisons together, after Holm; NaN stays and does not count.

    References
    ----------
    S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 6,
    65-70 (1979).

    Examples
    --------
    >>> adjusted(np.array([0.01, 0.5, 0.02])).tolist()
    [0.03, 0.5, 0.04]
    """
    made = np.full(len(p_values), np.nan)
    order = [int(i) for i in np.argsort(p_values) if not np.isnan(p_values[i])]
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * float(p_values[i])))
        made[i] = highest
    return made


def comparison_frame(
    scores: NDArray[np.float64], models: tuple[str, ...], baseline: str, test_to_train: float
) -> pd.DataFrame:
    """Return a row per model that is not the baseline, the nearest below or above it by its difference."""
    import pandas as pd

    base = scores[models.index(baseline)]
    rows = []
    others = [model for model in models if model != baseline]
    for model in others:
        differences = scores[models.index(model)] - base
        differences = differences[np.isfinite(differences)]
        mean = float(np.mean(differences)) if differences.size else float("nan")
        t, p_value, margin = corrected_t(differences, test_to_train)
        spread = float(np.std(differences, ddof=1)) if len(differences) > 1 else float("nan")
        rows.append((mean, spread, mean - margin, mean + margin, t, p_value, len(differences)))
    columns = ["difference", "std", "low", "high", "t", "p_value", "n_folds"]
    frame = pd.DataFrame(rows, columns=columns, index=pd.Index(others, name="model"))
    frame.insert(6, "p_adjusted", adjusted(frame["p_value"].to_numpy(dtype=np.float64)))
    return frame.sort_values("difference", ascending=False, kind="stable")
