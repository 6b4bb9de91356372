"""What a fitted search has tried: candidates, their parameters and scores, whatever their types."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anyfold.errors import InvalidInputError
from anyfold.results.lookup import one_of
from anyfold.results.names import elided

__all__ = ["Candidates", "Parameter", "candidates_of"]

ABSENT = "not set"
LONGEST_LABEL = 22
LOG_RATIO = 50
"""Positive numbers whose largest is so many times the smallest are drawn on a logarithmic axis."""


@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """One parameter that differs between candidates.

    Attributes
    ----------
    name : str
        As in the search.
    labels : list of str
        One for each of its values: numbers in their order, others in the order in which they came.
    codes : ndarray of shape (n_candidates,)
        Which value each candidate has.
    positions : ndarray of shape (n_candidates,)
        Where it is on an axis: the number itself, otherwise the code.
    is_numeric, is_logarithmic : bool
        What kind of axis it has.
    """

    name: str
    labels: list[str]
    codes: NDArray[np.int_]
    positions: NDArray[np.float64]
    is_numeric: bool
    is_logarithmic: bool

    def groups(self) -> list[NDArray[np.int_]]:
        """Return the candidates of each value."""
        return [np.flatnonzero(self.codes == code) for code in range(len(self.labels))]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """All candidates of a search.

    Attributes
    ----------
    parameters : list of Parameter
        Those that differ, the ones that the score depends on most first.
    means, stds : ndarray of shape (n_candidates,)
        Over the folds; NaN where there is no score.
    scores : ndarray of shape (n_candidates, n_folds)
        By fold.
    metric : str
        Name of the metric.
    best : int or None
        The candidate with the highest mean.
    """

    parameters: list[Parameter]
    means: NDArray[np.float64]
    stds: NDArray[np.float64]
    scores: NDArray[np.float64]
    metric: str
    best: int | None

    def best_of(self, rows: NDArray[np.int_]) -> int | None:
        """Return the best of some candidates; None where none has a score."""
        known = rows[np.isfinite(self.means[rows])]
        return int(known[np.argmax(self.means[known])]) if known.size else None

    def is_sparse(self, first: Parameter, second: Parameter) -> bool:
        """Whether most combinations of two parameters were not tried, as in a random search."""
        tried = {(int(a), int(b)) for a, b in zip(first.codes, second.codes, strict=True)}
        return len(tried) < 0.5 * len(first.labels) * len(second.labels)

    def choose(self, names: str | Sequence[str] | None) -> list[Parameter]:
        """Return the parameters to draw, one or two of them."""
        if names is None:
            return self.parameters[:2]
        names = [names] if isinstance(names, str) else list(names)
        if not 1 <= len(set(names)) == len(names) <= 2:
            raise InvalidInputError(f"params={names!r}: one or two different parameters can be drawn")
        known = {parameter.name: parameter for parameter in self.parameters}
        return [
            known[one_of("parameter that differs between candidates", name, list(known))] for name in names
        ]


def candidates_of(search: Any, metric: str | None) -> Candidates:
    """Read the ``cv_results_`` of a fitted search.

    Raises
    ------
    InvalidInputError
        If it is none, is not fitted, or no parameter differs between its candidates.
    """
    results = getattr(search, "cv_results_", None)
    if results is None:
        fits = ", or it is not fitted: call fit first" if hasattr(search, "fit") else ""
        raise InvalidInputError(f"{type(search).__name__} has no cv_results_: it is no search{fits}")
    metrics = [name.removeprefix("mean_test_") for name in results if name.startswith("mean_test_")]
    refit = getattr(search, "refit", None)
    metric = one_of("metric", refit if metric is None and refit in metrics else metric, metrics)
    rows = _last_of_each(results)
    given = [results["params"][row] for row in rows]
    means = np.asarray(results[f"mean_test_{metric}"], dtype=np.float64)[rows]
    folds = [name for name in results if name.startswith("split") and name.endswith(f"_test_{metric}")]
    scores = np.array([np.asarray(results[name], dtype=np.float64)[rows] for name in folds]).T
    names = dict.fromkeys(name for one in given for name in one)
    parameters = [_parameter(name, [one.get(name, ABSENT) for one in given]) for name in names]
    varied = [parameter for parameter in parameters if len(parameter.labels) > 1] or parameters[:1]
    if not varied:
        raise InvalidInputError("the candidates of this search have no parameters to draw over")
    return Candidates(
        parameters=sorted(varied, key=lambda parameter: -_importance(parameter, means)),
        means=np.where(np.isfinite(means), means, np.nan),
        stds=np.asarray(results[f"std_test_{metric}"], dtype=np.float64)[rows],
        scores=scores.reshape(len(rows), len(folds)),
        metric=metric,
        best=int(np.nanargmax(means)) if np.isfinite(means).any() else None,
    )


def _last_of_each(results: Any) -> list[int]:
    """Return one row per candidate: of halving searches, the one with the most resources."""
    if "iter" not in results:
        return list(range(len(results["params"])))
    last = {tuple((k, repr(v)) for k, v in given.items()): row for row, given in enumerate(results["params"])}
    return sorted(last.values())


def _parameter(name: str, values: Sequence[Any]) -> Parameter:
    numeric = all(_is_number(value) for value in values)
    if numeric:
        keys: list[Any] = [float(value) for value in values]
        order = sorted(set(keys))
        short = [f"{value:g}" if len(f"{value:g}") <= 6 else f"{value:.3g}" for value in order]
        labels = short if len(set(short)) == len(order) else [f"{value:.6g}" for value in order]
    else:
        keys = [_label(value) for value in values]
        counted = sorted((value for value in values if _is_number(value)), key=float)
        order = labels = list(dict.fromkeys([*map(_label, counted), *keys]))
    place = {key: code for code, key in enumerate(order)}
    codes = np.array([place[key] for key in keys], dtype=np.int_)
    positions = np.array(values, dtype=np.float64) if numeric else codes.astype(np.float64)
    wide = numeric and positions.min() > 0 and positions.max() >= LOG_RATIO * positions.min()
    return Parameter(name, labels, codes, positions, numeric, bool(wide))


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(float(value))


def _label(value: Any) -> str:
    if _is_number(value):
        return f"{float(value):.6g}"
    text = value if isinstance(value, str) else getattr(value, "__name__", None) or repr(value)
    return elided(" ".join(str(text).split()), LONGEST_LABEL)


def _importance(parameter: Parameter, means: NDArray[np.float64]) -> float:
    """Return how much the mean score differs between the values of a parameter, or ranges of values."""
    codes = parameter.codes
    if len(parameter.labels) > 8:  # values drawn at random: each comes once, and would explain everything
        codes = codes * 6 // len(parameter.labels)
    known = np.isfinite(means)
    groups = [means[known & (codes == code)] for code in np.unique(codes)]
    centres = [(np.mean(group), len(group)) for group in groups if len(group)]
    if len(centres) < 2:
        return 0.0
    values, weights = map(np.array, zip(*centres, strict=True))
    return float(np.average((values - np.average(values, weights=weights)) ** 2, weights=weights))
