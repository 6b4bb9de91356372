"""Every private or version-dependent import of scikit-learn, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils import get_tags
from sklearn.utils.validation import _check_method_params, _num_samples

__all__ = ["check_method_params", "is_multimetric", "is_pairwise", "num_samples", "safe_indexing"]


def num_samples(X: Any) -> int:
    """Return the number of samples, however the data is held."""
    n: int = _num_samples(X)
    return n


def is_pairwise(estimator: Any) -> bool:
    """Return whether X is a square kernel or distance matrix, sliced along both axes."""
    return bool(get_tags(estimator).input_tags.pairwise)


def check_method_params(X: Any, params: Mapping[str, Any] | None, indices: Any = None) -> dict[str, Any]:
    """Return parameters with those that have one value per sample sliced like X."""
    sliced: dict[str, Any] = _check_method_params(X, params, indices)
    return sliced


def is_multimetric(scorer: Any) -> bool:
    """Return whether a scorer answers with a dictionary of scores and texts of what failed."""
    from sklearn.metrics._scorer import _MultimetricScorer

    return isinstance(scorer, _MultimetricScorer)


def scorers_of(scorer: Any) -> dict[str, Any]:
    """Return the scorers that a scorer is made of, by the name of what they measure."""
    return dict(scorer._scorers) if is_multimetric(scorer) else {"score": scorer}


def response_methods_of(scorer: Any) -> tuple[str, ...]:
    """Return the methods of which a model must have one, to be scored; empty where nobody knows."""
    from sklearn.metrics._scorer import _BaseScorer

    if not isinstance(scorer, _BaseScorer):
        return ()
    methods = scorer._response_method
    return (methods,) if isinstance(methods, str) else tuple(methods)


def returns_one_number(scorer: Any) -> bool:
    """Return whether a scorer of scikit-learn answers with a number, unlike any other callable."""
    from sklearn.metrics._scorer import _BaseScorer, _PassthroughScorer

    return isinstance(scorer, (_BaseScorer, _PassthroughScorer))
