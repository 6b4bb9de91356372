"""One scorer per model, from any form that scikit-learn's ``scoring`` takes, checked before work starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.metrics import check_scoring, get_scorer_names

from anyfold import _compat
from anyfold._plan.models import near
from anyfold.errors import InvalidInputError

__all__ = ["check_response_methods", "make_scorer_for", "metric_names", "response_methods"]

RESPONSE_METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")


def make_scorer_for(name: str, estimator: Any, scoring: Any, *, raise_errors: bool) -> Any:
    """Return the scorer of one model."""
    _check_names(scoring)
    try:
        scorer = check_scoring(estimator, scoring=scoring, raise_exc=raise_errors)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"scoring={scoring!r} cannot score model {name!r}: {error}") from error
    for metric, part in _compat.scorers_of(scorer).items():
        methods = _compat.response_methods_of(part)
        if methods and not any(_has(estimator, method) for method in methods):
            raise InvalidInputError(
                f"scorer {metric!r} needs {' or '.join(methods)}, which model {name!r} "
                f"({type(estimator).__name__}) does not have"
            )
    return scorer


def _check_names(scoring: Any) -> None:
    if isinstance(scoring, str):
        names = [scoring]
    elif isinstance(scoring, Mapping):
        names = [value for value in scoring.values() if isinstance(value, str)]
    elif isinstance(scoring, (list, tuple, set, frozenset)):
        names = [value for value in scoring if isinstance(value, str)]
    else:
        return
    known = get_scorer_names()
    for name in names:
        if name not in known:
            raise InvalidInputError(
                f"there is no scorer {name!r}{near(name, known)}; "
                "sklearn.metrics.get_scorer_names() lists all names"
            )


def metric_names(scorer: Any) -> tuple[str, ...] | None:
    """Return the names of what a scorer measures; None where only calling it will tell."""
    if _compat.is_multimetric(scorer):
        return tuple(_compat.scorers_of(scorer))
    if _compat.returns_one_number(scorer):
        return ("score",)
    return None


def response_methods(return_predictions: Any) -> tuple[str, ...]:
    """Return the response methods whose out-of-fold values are kept."""
    match return_predictions:
        case False | None:
            return ()
        case True:
            return ("predict",)
        case str():
            methods: tuple[str, ...] = (return_predictions,)
        case list() | tuple():
            methods = tuple(return_predictions)
        case _:
            methods = (return_predictions,)
    for method in methods:
        if method not in RESPONSE_METHODS:
            hint = near(method, RESPONSE_METHODS) if isinstance(method, str) else ""
            raise InvalidInputError(
                f"return_predictions={method!r} is no response method{hint}; "
                f"allowed: True (predict), or {', '.join(RESPONSE_METHODS)}, or a list of them"
            )
    return methods


def check_response_methods(name: str, estimator: Any, methods: tuple[str, ...]) -> None:
    """Raise where a model surely lacks a method that is asked for."""
    for method in methods:
        if not _has(estimator, method):
            raise InvalidInputError(
                f"return_predictions={method!r}: model {name!r} ({type(estimator).__name__}) has no {method}"
            )


def _has(estimator: Any, method: str) -> bool:
    """Whether a model has a method, or may have it once it is fitted."""
    if hasattr(estimator, method):
        return True
    steps = getattr(estimator, "steps", None)
    if isinstance(steps, list) and steps and hasattr(steps[-1][1], "get_params"):
        return _has(steps[-1][1], method)
    # What an estimator around other estimators has is often known only after fit.
    return any(hasattr(value, "fit") for value in estimator.get_params(deep=True).values())
