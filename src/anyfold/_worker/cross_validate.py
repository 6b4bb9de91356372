"""Fits one model on one fold and scores it: what a leaf of `run_cv` does."""

from __future__ import annotations

import copy
import numbers
import time
from collections.abc import Collection, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone

from anyfold import _compat
from anyfold._data.kinds import is_readonly_error
from anyfold._data.slices import FoldSlices, slices
from anyfold._plan.prefix import leading_steps
from anyfold._plan.seeds import seed_open_states
from anyfold._plan.task import Failure, FoldScores, Leaf
from anyfold._worker.alone import alone_if_needed
from anyfold._worker.execute import Produced, in_stage
from anyfold._worker.failures import failure_of
from anyfold._worker.kept_steps import Made, take_made
from anyfold._worker.shared_steps import SharedSteps
from anyfold.executors.base import Shared

__all__ = ["CrossValidation", "FoldData", "ModelPlan", "SplitAnew"]


@dataclass(frozen=True, slots=True)
class FoldData:
    """The data of a `Folds`, as the workers read it."""

    X: Any
    y: Any
    splits: tuple[tuple[np.ndarray, np.ndarray], ...]
    """Train and test indices of each fold."""


@dataclass(frozen=True, slots=True)
class SplitAnew:
    """Data that stays published from round to round of a search, with the splits of one round."""

    data: Shared[FoldData]
    splits: Shared[tuple[tuple[np.ndarray, np.ndarray], ...]]

    def get(self) -> FoldData:
        return replace(self.data.get(), splits=self.splits.get())

    def release(self) -> None:
        self.splits.release()


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model and what goes with it."""

    estimator: Any
    scorer: Any
    pairwise: bool
    fit_params: Mapping[str, Any]
    score_params: Mapping[str, Any]
    shares_steps: bool = False
    """Whether another task of a fold begins with the same steps."""


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """The work of `run_cv`."""

    data: Shared[FoldData]
    data_id: str
    """Equal as long as the data is the same; under it a worker keeps slices."""
    models: Mapping[str, ModelPlan]
    root_seed: int
    raise_errors: bool
    error_score: float
    return_train_score: bool
    return_estimator: bool
    response_methods: tuple[str, ...]

    def run(self, leaf: Leaf, *, writable: bool) -> Produced:
        """Clone, seed, fit and score one model on one fold."""
        plan, data = self.models[leaf.key.model], self.data.get()
        train, test = data.splits[leaf.key.fold]
        fold = self._slices(leaf, writable=writable)
        fit_params = _own(data.X, plan.fit_params, train)
        estimator, parts = self._estimator(leaf)
        steps = SharedSteps(leaf.key, self._known(fold, leaf.key.fold, plan.pairwise), fold.y_train)
        with steps.attached(estimator) if plan.shares_steps and not writable else nullcontext():
            begun = time.perf_counter()
            with in_stage("fit"), alone_if_needed(estimator, *parts):
                if fold.y_train is None:
                    estimator.fit(fold.X_train, **fit_params)
                else:
                    estimator.fit(fold.X_train, fold.y_train, **fit_params)
            fit_time = time.perf_counter() - begun + steps.take_saved()
            begun = time.perf_counter()
            score_params = _own(data.X, plan.score_params, test)
            test_scores, failure = self._score(plan, estimator, fold.X_test, fold.y_test, score_params)
            score_time = time.perf_counter() - begun + steps.take_saved()
            train_scores = None
            if self.return_train_score:
                score_params = _own(data.X, plan.score_params, train)
                train_scores, on_train = self._score(
                    plan, estimator, fold.X_train, fold.y_train, score_params
                )
                failure = failure or on_train
            predictions = self._predictions(estimator, fold.X_test)
        return Produced(
            FoldScores(test_scores, train_scores, fit_time, score_time, steps.n_fits, steps.total),
            self._extras(estimator, predictions),
            failure,
        )

    def fit_stem(self, leaf: Leaf, depth: int) -> list[Made]:
        """Fit the first steps of a leaf's pipeline and transform the test data with them."""
        fold = self._slices(leaf, writable=False)
        from sklearn.pipeline import Pipeline

        estimator, parts = self._estimator(leaf)
        first = leading_steps(estimator)[:depth]
        pipeline = Pipeline([(f"step{position}", step) for position, step in enumerate(first)])
        pairwise = self.models[leaf.key.model].pairwise
        steps = SharedSteps(leaf.key, self._known(fold, leaf.key.fold, pairwise), fold.y_train)
        with (
            steps.attached(pipeline, is_transformer=True),
            alone_if_needed(*parts),
            suppress(Exception),  # the leaves will raise it
        ):
            pipeline.fit_transform(fold.X_train, fold.y_train)
            pipeline.transform(fold.X_test)
        return steps.made()

    def take_stem(self, fitted: list[Made]) -> None:
        """Take what another worker has fitted."""
        take_made(fitted)

    def _slices(self, leaf: Leaf, *, writable: bool) -> FoldSlices:
        data, fold = self.data.get(), leaf.key.fold
        pairwise = self.models[leaf.key.model].pairwise
        train, test = data.splits[fold]
        return slices(self.data_id, fold, data.X, data.y, train, test, pairwise=pairwise, writable=writable)

    def _estimator(self, leaf: Leaf) -> tuple[Any, Collection[Any]]:
        """Return the leaf's estimator, with its parameters and seeds, and the values of all of them."""
        estimator = clone(self.models[leaf.key.model].estimator)
        if leaf.parameters:
            estimator.set_params(**clone(dict(leaf.parameters), safe=False))
        return estimator, seed_open_states(estimator, self.root_seed, leaf.key.fold)

    def _known(self, fold: FoldSlices, number: int, pairwise: bool) -> list[tuple[Any, bytes]]:
        where = f"{self.data_id} {number} {pairwise}"
        return [(fold.X_train, f"{where} train".encode()), (fold.X_test, f"{where} test".encode())]

    def _score(
        self, plan: ModelPlan, estimator: Any, X: Any, y: Any, params: Mapping[str, Any]
    ) -> tuple[dict[str, float], Failure | None]:
        failure = None
        with in_stage("score"):
            try:
                scores = (
                    plan.scorer(estimator, X, **params)
                    if y is None
                    else plan.scorer(estimator, X, y, **params)
                )
            except Exception as error:
                if self.raise_errors or _compat.is_multimetric(plan.scorer) or is_readonly_error(error):
                    raise
                scores, failure = self.error_score, failure_of("score", error)
            if not isinstance(scores, dict):
                return {"score": _number(scores, plan.scorer)}, failure
            numbers_by_name = {}
            for name, score in scores.items():
                if isinstance(score, str) and _compat.is_multimetric(plan.scorer):
                    # scikit-learn's multimetric scorer answers with the traceback of what failed
                    failure = failure or _failure_from_text(name, score)
                    score = self.error_score
                numbers_by_name[name] = _number(score, name)
        return numbers_by_name, failure

    def _predictions(self, estimator: Any, X: Any) -> dict[str, Any]:
        with in_stage("predict"):
            return {
                method: (
                    getattr(estimator, method)(X),
                    None if method == "predict" else getattr(estimator, "classes_", None),
                )
                for method in self.response_methods
            }

    def _extras(self, estimator: Any, predictions: dict[str, Any]) -> dict[str, Any] | None:
        extras: dict[str, Any] = {}
        if self.return_estimator:
            extras["estimator"] = estimator
        if self.response_methods:
            extras["predictions"] = predictions
        return extras or None


def _own(X: Any, params: Mapping[str, Any], indices: np.ndarray) -> dict[str, Any]:
    """Slice parameters that have one value per sample; of all others the task gets a copy of its own."""
    sliced = _compat.check_method_params(X, params, indices)
    return {name: copy.deepcopy(value) if value is params[name] else value for name, value in sliced.items()}


def _number(score: Any, scorer: Any) -> float:
    if hasattr(score, "item"):
        with suppress(ValueError):  # an array of one number or more
            score = score.item()
    if not isinstance(score, numbers.Number):
        raise ValueError(
            f"scoring must return a number, got {score!r} ({type(score)}) instead (scorer: {scorer!r})"
        )
    return score  # type: ignore[return-value]


def _failure_from_text(metric: str, text: str) -> Failure:
    last = text.strip().splitlines()[-1] if text.strip() else "unknown error"
    type_name, _, message = last.partition(": ")
    return Failure("score", type_name.rpartition(".")[2], f"{metric}: {message}", text)
