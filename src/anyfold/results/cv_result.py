"""What `anyfold.run_cv` returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anyfold._plan.task import Outcome
from anyfold.errors import InvalidInputError
from anyfold.results.display import as_html, as_text
from anyfold.results.grid import OutcomeGrid
from anyfold.results.lookup import check_model, one_of
from anyfold.results.predictions import Classes, aligned_folds, in_sample_order, is_partition
from anyfold.results.records import (
    FailureRecord,
    LoggedRecord,
    OutputRecord,
    WarningRecord,
    failures_of,
    logs_of,
    output_of,
    warnings_of,
)
from anyfold.results.statistics import mean_and_std
from anyfold.results.tables import cross_validate_dict, summary_frame, tidy_frame
from anyfold.results.views import Views

if TYPE_CHECKING:
    import pandas as pd

    from anyfold._plan.content import JournalUse

__all__ = ["CVResult"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CVResult(Views, Mapping[str, dict[str, Any]]):
    """Scores, times, failures and, where asked for, estimators and predictions of every model on every fold.

    A mapping from the names of the models to what scikit-learn's `cross_validate` would have
    returned for each; any other name raises `UnknownModelError`. `anyfold.run_cv` makes it::

        result = anyfold.run_cv(models, folds, scoring=["roc_auc", "accuracy"])
        result.summary()           # mean, std and rank per model and metric
        result.to_frame()          # one row per model and fold
        result["rf"]["test_accuracy"]
        result.compare()           # paired differences with a test
        result.slowest()           # tasks that took longest
        result.plot(); result.plot_timeline()
        result.save("result.npz"); anyfold.CVResult.load("result.npz")

    A task that failed has ``error_score`` for the scores that it did not reach and stands in
    `failures`. A task that never ran, because the run was interrupted, has NaN for scores and times,
    None as estimator, and stands in `missing`. Estimators and predictions are unpickled when they are
    first asked for; `UnreadableResultError` names those that cannot be.

    Parameters
    ----------
    outcomes : iterable of Outcome
        What became of the tasks, in any order; those that never ran are absent.
    models : tuple of str
        Names of the models, in the order in which they were given.
    n_folds, n_samples : int
        Number of folds, and of samples in the data.
    metrics : tuple of str
        Names of the metrics; ``("score",)`` where there is only one.
    splits : sequence of (train, test)
        Indices of each fold.
    error_score : float
        Score of a task that failed.
    random_state : int
        Root of all seeds of the run.
    backend, n_jobs : str, int or None
        Where the tasks ran, and on how many workers; None where the backend decided.
    choice : str or None, default=None
        With ``backend="auto"``, which tasks ran where, and why.
    wall_time : float
        Seconds that the run took.
    return_train_score : bool
        Whether there are scores on the training data.
    response_methods : tuple of str
        Methods whose predictions of the test samples were kept.
    parameters : mapping, default={}
        Parameters of each model, for the records of failures.
    interrupted : bool, default=False
        Whether the run was ended before all tasks had run.
    journal : JournalUse or None, default=None
        What was taken from the journal and what could not be; None where there was none.
    classes : ndarray, list of ndarray or None, default=None
        Classes of all data, one array per output where there are several; None where there are none.

    Examples
    --------
    >>> import anyfold as af
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.naive_bayes import GaussianNB
    >>> models = {"nb": GaussianNB(), "dummy": DummyClassifier()}
    >>> result = af.run_cv(models, af.Folds(*load_iris(return_X_y=True)), backend="serial", random_state=0)
    >>> result.best_model
    'nb'
    >>> list(result), result["dummy"]["test_score"].round(2).tolist()
    (['nb', 'dummy'], [0.33, 0.33, 0.33, 0.33, 0.33])
    """

    outcomes: InitVar[Iterable[Outcome]] = field(kw_only=False)
    models: Sequence[str]
    n_folds: int
    n_samples: int
    metrics: Sequence[str]
    splits: Sequence[tuple[NDArray[Any], NDArray[Any]]]
    error_score: float
    random_state: int
    backend: str
    n_jobs: int | None
    wall_time: float
    return_train_score: bool
    response_methods: Sequence[str]
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    interrupted: bool = False
    journal: JournalUse | None = None
    classes: Classes = None
    choice: str | None = None
    _grid: OutcomeGrid = field(init=False)

    def __post_init__(self, outcomes: Iterable[Outcome]) -> None:
        for name in ("models", "metrics", "splits", "response_methods"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "_grid", OutcomeGrid(outcomes, self.models, self.n_folds, self.error_score))

    def summary(self) -> pd.DataFrame:
        """Return mean, standard deviation and rank per model and metric, the best model first.

        As scikit-learn's searches compute them: ``std`` with ``ddof=0``, rank 1 for the highest mean, equal
        means with equal rank, NaN last. A failed fold counts with ``error_score``, so that NaN there makes
        the mean NaN. A fold that never ran does not count; where there are such folds, a column ``n_folds``
        says how many folds stand behind each model's numbers, and models are ranked on the folds that all
        of them ran.

        Returns
        -------
        DataFrame
            Index ``model``, ordered by the first metric. Columns (metric, ``"mean"``, ``"std"`` or
            ``"rank"``); where there are scores on the training data also those of ``"train_"`` + metric.

        Examples
        --------
        >>> import anyfold as af
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> folds = af.Folds(*load_iris(return_X_y=True), cv=3)
        >>> result = af.run_cv({"nb": GaussianNB()}, folds, backend="serial", random_state=0)
        >>> round(float(result.summary().loc["nb", ("score", "mean")]), 3)
        0.94
        """
        return summary_frame(self._grid, self.metrics, with_train=self.return_train_score)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per model and fold, in this order, whatever the order in which they ran.

        Returns
        -------
        DataFrame
            Columns ``model``, ``fold``, one per metric (``score`` where there is only one), ``train_`` +
            metric where there are scores on the training data, ``fit_time`` and ``score_time`` in seconds.

        Examples
        --------
        >>> import anyfold as af
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> folds = af.Folds(*load_iris(return_X_y=True), cv=3)
        >>> result = af.run_cv({"nb": GaussianNB()}, folds, backend="serial", random_state=0)
        >>> result.to_frame()[["model", "fold"]].to_numpy().tolist()
        [['nb', 0], ['nb', 1], ['nb', 2]]
        """
        return tidy_frame(self._grid, self.metrics, with_train=self.return_train_score)

    def scores(self, metric: str | None = None, *, train: bool = False) -> NDArray[np.float64]:
        """Return the scores of one metric as an array.

        Parameters
        ----------
        metric : str, default=None
            Name of the metric; None is the first.
        train : bool, default=False
            Scores on the training data instead of the test data.

        Returns
        -------
        ndarray of shape (n_models, n_folds)
            In the order of ``models``; NaN where a task never ran.

        Examples
        --------
        >>> import anyfold as af
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> folds = af.Folds(*load_iris(return_X_y=True), cv=3)
        >>> result = af.run_cv({"nb": GaussianNB()}, folds, backend="serial", random_state=0)
        >>> result.scores().round(2).tolist()
        [[0.92, 0.94, 0.96]]
        """
        metric = one_of("metric", metric, self.metrics)
        if train and not self.return_train_score:
            raise InvalidInputError("no train scores were kept; run with return_train_score=True")
        return self._grid.scores(metric, train=train)

    def __getitem__(self, name: str) -> dict[str, Any]:
        """Return what scikit-learn's `cross_validate` would have returned for one model."""
        check_model(name, self.models)
        return cross_validate_dict(self._grid, name, self.metrics, with_train=self.return_train_score)

    def __iter__(self) -> Iterator[str]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def __contains__(self, name: object) -> bool:
        return name in self.models

    # A mapping would compare its values, which are arrays. Tables can be compared: to_frame().equals.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def estimators(self, name: str) -> list[Any]:
        """Return the fitted estimators of one model, one per fold.

        Parameters
        ----------
        name : str
            Name of the model.

        Returns
        -------
        list of length n_folds
            None where the task failed or never ran. The same objects at each call.

        Raises
        ------
        InvalidInputError
            If the run did not keep estimators.
        """
        check_model(name, self.models)
        if not self._grid.has_estimators(name):
            raise InvalidInputError(f"no estimators of {name!r} were kept; run with return_estimator=True")
        return self._grid.estimators(name)

    def predictions(self, name: str, method: str | None = None, *, by_fold: bool = False) -> Any:
        """Return what one model predicted for the test samples of each fold.

        Parameters
        ----------
        name : str
            Name of the model.
        method : {"predict", "predict_proba", "predict_log_proba", "decision_function"}, default=None
            Which predictions; None is the first of those that were kept.
        by_fold : bool, default=False
            Whether to keep the folds apart even where every sample is tested once.

        Returns
        -------
        ndarray, sparse matrix, list of ndarray, or list of (test, values)
            Where every sample stands in exactly one test set, one row per sample in the order of the
            data, as scikit-learn's `cross_val_predict` returns it: columns stand for the classes of all data
            (`RuntimeWarning` where a fold's training data lack some), a list has one array per output,
            frames are plain arrays. Otherwise, and with ``by_fold``, test indices and predictions of each
            fold; the predictions are None where the task failed or never ran.

        Raises
        ------
        InvalidInputError
            If these predictions were not kept, or if a fold lacks them and ``by_fold`` is False.
        """
        check_model(name, self.models)
        if not self.response_methods:
            raise InvalidInputError('no predictions were kept; run with return_predictions="predict"')
        method = one_of("kind of kept predictions", method, self.response_methods)
        made = {key: self._grid.prediction(key, method) for key in self._grid.keys_of(name)}
        test_sets = [test for _, test in self.splits]
        folds = aligned_folds(made, test_sets, self.classes, method)
        if by_fold or not is_partition(test_sets, self.n_samples):
            return folds
        return in_sample_order(folds, f"{method} of model {name!r}")

    @cached_property
    def failures(self) -> tuple[FailureRecord, ...]:
        """Tasks that failed, in the order of models and folds."""
        told = (failures_of(outcome, self.parameters.get(outcome.key.model, {})) for outcome in self._grid)
        return tuple(record for records in told for record in records)

    @cached_property
    def warnings(self) -> tuple[WarningRecord, ...]:
        """Warnings that tasks issued, in the order of models and folds."""
        return tuple(record for outcome in self._grid for record in warnings_of(outcome))

    @cached_property
    def logs(self) -> tuple[LoggedRecord, ...]:
        """What tasks logged at the levels that the caller had set, in the order of models and folds."""
        return tuple(record for outcome in self._grid for record in logs_of(outcome))

    @cached_property
    def output(self) -> tuple[OutputRecord, ...]:
        """What tasks printed, in the order of models and folds."""
        return tuple(record for outcome in self._grid for record in output_of(outcome))

    @cached_property
    def missing(self) -> tuple[tuple[str, int], ...]:
        """Model and fold of the tasks that never ran."""
        return self._grid.missing()

    @property
    def n_shared_fits(self) -> int:
        """How many steps of pipelines were not fitted, since another model had fitted the same."""
        return sum(outcome.value.n_shared for outcome in self._grid if outcome.value is not None)

    @property
    def saved_time(self) -> float:
        """Seconds of work that this saved; ``fit_time`` and ``score_time`` count them all the same."""
        return float(sum(outcome.value.saved_time for outcome in self._grid if outcome.value is not None))

    @property
    def best_model(self) -> str | None:
        """Name of the best model by the first metric; None where no fold can tell.

        Models are compared on the folds that all of them ran.
        """
        means, _ = mean_and_std(self._grid.scores(self.metrics[0]), self._grid.comparable())
        return None if np.isnan(means).all() else self.ranked_models[0]

    def __repr__(self) -> str:
        return as_text(self, self._grid)

    def _repr_html_(self) -> str:
        return as_html(self, self._grid)
