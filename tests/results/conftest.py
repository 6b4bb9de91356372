"""Results made by hand: scikit-learn fits in a plain loop, outcomes in any order."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import check_scoring
from sklearn.utils import _safe_indexing

from anyfold._data.serialize import dumps
from anyfold._plan.task import Failure, FoldScores, Outcome, Place, RelayedWarning, TaskKey
from anyfold.results import CVResult

HERE = Place("here", 4242, "MainThread")


def outcome(
    model: str,
    fold: int,
    scores: Mapping[str, float] | None,
    *,
    train: Mapping[str, float] | None = None,
    failure: Failure | None = None,
    payload: Any = None,
    warnings: Sequence[RelayedWarning] = (),
    place: Place | None = HERE,
    started: float = 1000.0,
    ended: float = 1001.0,
) -> Outcome:
    value = None if scores is None else FoldScores(scores, train, fit_time=0.5 + fold, score_time=0.25)
    return Outcome(
        TaskKey(model, 0, fold),
        value,
        failure=failure,
        warnings=tuple(warnings),
        payload=payload if payload is None or isinstance(payload, bytes) else dumps(payload),
        place=place,
        started=started,
        ended=ended,
    )


def result_of(outcomes: Sequence[Outcome], **facts: Any) -> CVResult:
    """Make a result whose facts follow from its outcomes, unless they are given."""
    models = facts.pop("models", tuple(dict.fromkeys(one.key.model for one in outcomes)))
    n_folds = facts.pop("n_folds", 1 + max((one.key.fold for one in outcomes), default=-1))
    splits = facts.pop("splits", [(np.array([1 - fold % 2]), np.array([fold])) for fold in range(n_folds)])
    defaults: dict[str, Any] = {
        "metrics": ("score",),
        "n_samples": n_folds,
        "error_score": float("nan"),
        "random_state": 7,
        "backend": "serial",
        "n_jobs": 1,
        "wall_time": 2.5,
        "return_train_score": False,
        "response_methods": (),
    }
    return CVResult(outcomes, models=models, n_folds=n_folds, splits=splits, **(defaults | facts))


def scored(table: Mapping[str, Sequence[float]], **facts: Any) -> CVResult:
    """Make a result from scores by model and fold."""
    return result_of(
        [
            outcome(model, fold, {"score": score})
            for model, row in table.items()
            for fold, score in enumerate(row)
        ],
        **facts,
    )


def failed(message: str = "broken", exception: BaseException | None = None, **parts: Any) -> Failure:
    pickled = None if exception is None else dumps(exception)
    return Failure("fit", "ValueError", message, "Traceback: worker side", exception=pickled, **parts)


def classes_of(y: Any) -> Any:
    if y is None:
        return None
    y = np.asarray(y)
    return np.unique(y) if y.ndim == 1 else [np.unique(column) for column in y.T]


def cross_validated(
    models: Mapping[str, Any],
    X: Any,
    y: Any,
    splits: Sequence[tuple[Any, Any]],
    *,
    scoring: Any = None,
    methods: Sequence[str] = (),
    with_train: bool = False,
    with_estimator: bool = False,
) -> CVResult:
    """Fit every model on every fold with scikit-learn alone and shuffle what comes out."""
    outcomes = []
    for name, model in models.items():
        scorer = check_scoring(model, scoring=scoring) if scoring is not False else None
        for fold, (train, test) in enumerate(splits):
            y_train = None if y is None else _safe_indexing(y, train)
            fitted = clone(model).fit(_safe_indexing(X, train), y_train)
            test_scores = _scores(scorer, fitted, X, y, test)
            train_scores = _scores(scorer, fitted, X, y, train) if with_train else None
            payload: dict[str, Any] = {"estimator": fitted} if with_estimator else {}
            if methods:
                classes = getattr(fitted, "classes_", None)
                payload["predictions"] = {
                    method: (getattr(fitted, method)(_safe_indexing(X, test)), classes) for method in methods
                }
            outcomes.append(outcome(name, fold, test_scores, train=train_scores, payload=payload or None))
    metrics = tuple(outcomes[0].value.test)
    random.Random(0).shuffle(outcomes)
    return result_of(
        outcomes,
        models=tuple(models),
        n_folds=len(splits),
        metrics=metrics,
        splits=splits,
        n_samples=X.shape[0],
        return_train_score=with_train,
        response_methods=tuple(methods),
        classes=classes_of(y),
    )


def _scores(scorer: Any, fitted: Any, X: Any, y: Any, rows: Any) -> dict[str, float]:
    if scorer is None:
        return {"score": 0.0}
    scores = scorer(fitted, _safe_indexing(X, rows), None if y is None else _safe_indexing(y, rows))
    return scores if isinstance(scores, dict) else {"score": scores}


@pytest.fixture
def make() -> type:
    """The makers above, under one name, since tests cannot import a conftest."""

    class Makers:
        cross_validated: Callable[..., CVResult] = staticmethod(cross_validated)
        failed: Callable[..., Failure] = staticmethod(failed)
        outcome: Callable[..., Outcome] = staticmethod(outcome)
        result_of: Callable[..., CVResult] = staticmethod(result_of)
        scored: Callable[..., CVResult] = staticmethod(scored)

    return Makers
