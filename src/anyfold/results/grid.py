"""What became of every task: outcomes by model and fold, with gaps where a task never ran."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anyfold._plan.task import FoldScores, Outcome, TaskKey
from anyfold.errors import InvalidInputError
from anyfold.results.payload import load
from anyfold.results.predictions import Classes
from anyfold.results.statistics import fold_score, mean_and_std, rank_by_mean

__all__ = ["OutcomeGrid"]


class OutcomeGrid:
    """Outcomes in the order of models and folds, whatever the order in which they came.

    Parameters
    ----------
    outcomes : iterable of Outcome
        In any order; tasks that never ran are absent.
    models : sequence of str
        Names of the models.
    n_folds : int
        Number of folds.
    error_score : float
        Score of a task that failed.

    Attributes
    ----------
    models, n_folds
        As given.

    Raises
    ------
    InvalidInputError
        If an outcome belongs to no model and fold of the grid, or two belong to the same.
    """

    def __init__(
        self, outcomes: Iterable[Outcome], models: Sequence[str], n_folds: int, error_score: float
    ) -> None:
        keys = [TaskKey(model, 0, fold) for model in models for fold in range(n_folds)]
        arrived: dict[TaskKey, Outcome] = {}
        expected = set(keys)
        for outcome in outcomes:
            if outcome.key not in expected or outcome.key in arrived:
                why = "came twice" if outcome.key in arrived else "is not among the tasks of this run"
                raise InvalidInputError(f"the outcome of {outcome.key!r} {why}")
            arrived[outcome.key] = outcome
        self.n_folds = n_folds
        self._error_score = error_score
        self.models = tuple(models)
        self._outcomes = {key: arrived.get(key) for key in keys}
        self._payloads: dict[TaskKey, Mapping[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_payloads": {}}  # the bytes travel; objects are made again when asked for

    def __iter__(self) -> Iterator[Outcome]:
        return (outcome for outcome in self._outcomes.values() if outcome is not None)

    def keys_of(self, model: str) -> list[TaskKey]:
        """Return what identifies the tasks of one model, by fold."""
        return [TaskKey(model, 0, fold) for fold in range(self.n_folds)]

    def of_model(self, model: str) -> list[Outcome | None]:
        """Return the outcomes of one model by fold."""
        return [self._outcomes[key] for key in self.keys_of(model)]

    def missing(self) -> tuple[tuple[str, int], ...]:
        """Return model and fold of the tasks that never ran."""
        return tuple((key.model, key.fold) for key, outcome in self._outcomes.items() if outcome is None)

    def present(self) -> NDArray[np.bool_]:
        """Return which tasks ran, of shape (n_models, n_folds)."""
        ran = [outcome is not None for outcome in self._outcomes.values()]
        return np.array(ran, dtype=bool).reshape(len(self.models), self.n_folds)

    def scores(self, metric: str, *, train: bool = False) -> NDArray[np.float64]:
        """Return the scores of one metric, of shape (n_models, n_folds)."""
        rows = [self.fold_scores(model, metric, train=train) for model in self.models]
        return np.array(rows, dtype=np.float64).reshape(len(self.models), self.n_folds)

    def fold_scores(self, model: str, metric: str, *, train: bool = False) -> list[float]:
        """Return the scores of one model by fold, untouched."""
        return [
            fold_score(outcome, metric, self._error_score, train=train) for outcome in self.of_model(model)
        ]

    def mean_and_std(
        self, metric: str, *, train: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and standard deviation of each model over the folds that ran."""
        return mean_and_std(self.scores(metric, train=train), self.present())

    def ranks(self, metric: str) -> NDArray[np.int32]:
        """Return the rank of each model on the folds that all of them ran."""
        means, _ = mean_and_std(self.scores(metric), self.comparable())
        return rank_by_mean(means)

    def comparable(self) -> NDArray[np.bool_]:
        """Return which tasks models can be compared by: of the folds that all ran which ran any."""
        present = self.present()
        common: NDArray[np.bool_] = present & present[present.any(axis=1)].all(axis=0)
        return common

    def times(self, model: str, name: Literal["fit_time", "score_time"]) -> list[float]:
        """Return how long one model took by fold; NaN where it is not known."""
        values = [None if outcome is None else outcome.value for outcome in self.of_model(model)]
        return [getattr(value, name) if isinstance(value, FoldScores) else float("nan") for value in values]

    def has_estimators(self, model: str) -> bool:
        """Whether fitted estimators came back; the first fold that succeeded tells for all."""
        for outcome in self.of_model(model):
            if outcome is not None and outcome.failure is None:
                return "estimator" in self._payload(outcome.key)
        return any("estimator" in self._payload(key) for key in self.keys_of(model))

    def estimators(self, model: str) -> list[Any]:
        """Return the fitted estimators of one model by fold, None where there is none."""
        return [self._payload(key).get("estimator") for key in self.keys_of(model)]

    def prediction(self, key: TaskKey, method: str) -> tuple[Any, Classes] | None:
        """Return predictions and the classes of the estimator that made them, None where there are none."""
        made: tuple[Any, Classes] | None = self._payload(key).get("predictions", {}).get(method)
        return made

    def _payload(self, key: TaskKey) -> Mapping[str, Any]:
        outcome = self._outcomes[key]
        if outcome is None or outcome.payload is None:
            return {}
        if key not in self._payloads:
            self._payloads[key] = load(outcome.payload, "estimator or predictions", key)
        return self._payloads[key]
