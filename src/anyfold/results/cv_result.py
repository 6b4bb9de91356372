"""What `anyfold.run_cv` returns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anyfold._plan.task import Outcome
from anyfold.errors import InvalidInputError
from anyfold.results.comparison import comparison_frame
from anyfold.results.display import as_html, as_text
from anyfold.results.grid import OutcomeGrid
from anyfold.results.lookup import check_model, one_of
from anyfold.results.predictions import Classes, aligned_folds, in_sample_order, is_partition
from anyfold.results.records import FailureRecord, WarningRecord, failures_of, warnings_of
from anyfold.results.saving import load_result, save_result
from anyfold.results.statistics import mean_and_std
from anyfold.results.tables import (
    cross_validate_dict,
    ranked_models,
    slowest_frame,
    summary_frame,
    tidy_frame,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from anyfold._plan.content import JournalUse

__all__ = ["CVResult"]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class CVResult(Mapping[str, dict[str, Any]]):
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
    >>> X, y = load_iris(return_X_y=True)
    >>> models = {"nb": GaussianNB(), "dummy": DummyClassifier()}
    >>> result = af.run_cv(
    ...     models, af.Folds(X, y, cv=3), backend="serial", return_estimator=True, return_predictions=True
    ... )
    >>> result.best_model, result.failures, result.missing
    ('nb', (), ())
    >>> result.summary()["score", "rank"].to_dict()
    {'nb': 1, 'dummy': 2}
    >>> result.to_frame().columns.tolist()
    ['model', 'fold', 'score', 'fit_time', 'score_time']
    >>> result.scores().shape
    (2, 3)
    >>> sorted(result["nb"])
    ['estimator', 'fit_time', 'score_time', 'test_score']
    >>> result.estimators("nb")
    [GaussianNB(), GaussianNB(), GaussianNB()]
    >>> result.predictions("nb").shape
    (150,)
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
        """
        return summary_frame(self._grid, self.metrics, with_train=self.return_train_score)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per model and fold, in this order, whatever the order in which they ran.

        Returns
        -------
        DataFrame
            Columns ``model``, ``fold``, one per metric (``score`` where there is only one), ``train_`` +
            metric where there are scores on the training data, ``fit_time`` and ``score_time`` in seconds.
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
        """
        metric = one_of("metric", metric, self.metrics)
        if train and not self.return_train_score:
            raise InvalidInputError("no train scores were kept; run with return_train_score=True")
        return self._grid.scores(metric, train=train)

    def compare(self, baseline: str | None = None, metric: str | None = None) -> pd.DataFrame:
        """Compare all models with one of them on the same folds.

        The test is the corrected resampled t-test of Nadeau and Bengio [1]_, which takes into account that
        the training sets of folds overlap; without that almost everything seems significant. It was made for
        repeated random splits, and is an approximation for k folds.

        Parameters
        ----------
        baseline : str, default=None
            Name of the model that the others are compared with; None is the best.
        metric : str, default=None
            Name of the metric; None is the first.

        Returns
        -------
        DataFrame
            Index ``model``, the best first. Columns ``difference`` (mean of the model's scores minus the
            baseline's, fold by fold) and ``std`` (``ddof=1``) of these differences; ``low`` and ``high``, the
            95 % confidence interval of the mean difference; ``t`` and ``p_value``, two-sided; ``p_adjusted``,
            by Holm [2]_, which holds for all rows together; ``n_folds``, on how many both have a score.

        References
        ----------
        .. [1] C. Nadeau and Y. Bengio, "Inference for the Generalization Error", Machine Learning 52, 239-281
           (2003), doi:10.1023/A:1024068626366.
        .. [2] S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
           Statistics 6, 65-70 (1979).

        Examples
        --------
        >>> import anyfold as af
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.dummy import DummyClassifier
        >>> from sklearn.naive_bayes import GaussianNB
        >>> X, y = load_iris(return_X_y=True)
        >>> models = {"nb": GaussianNB(), "dummy": DummyClassifier()}
        >>> result = af.run_cv(models, af.Folds(X, y), backend="serial", random_state=0)
        >>> result.compare().loc["dummy", ["difference", "low", "high"]].round(2).tolist()
        [-0.62, -0.68, -0.56]
        """
        name = self.ranked_models[0] if baseline is None else baseline
        check_model(name, self.models)
        n_test, n_train = (sum(len(split[part]) for split in self.splits) for part in (1, 0))
        scores = self.scores(metric)
        return comparison_frame(scores, tuple(self.models), name, n_test / max(n_train, 1))

    def slowest(self, n: int = 10) -> pd.DataFrame:
        """Return the tasks that took longest.

        Parameters
        ----------
        n : int, default=10
            How many.

        Returns
        -------
        DataFrame
            The slowest first. Columns ``model``, ``fold``; ``seconds`` from start to end on the worker, and
            of these ``fit_time`` and ``score_time``; ``host`` and ``pid`` of the worker; ``attempts`` and
            ``failed``.
        """
        return slowest_frame(self._grid, n)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write scores, times, failures, warnings and splits to a file that holds no pickle.

        It is a zip archive of numpy arrays and one JSON text. Estimators and predictions are not in it, nor
        exceptions as objects: `AnyfoldWarning` says so where there are estimators or predictions.

        Parameters
        ----------
        path : str or path
            Of the file; one that is there is replaced when the new one is complete.
        """
        save_result(self, self._grid, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CVResult:
        """Read what `save` has written; nothing in the file is ever run.

        Parameters
        ----------
        path : str or path
            Of the file.

        Returns
        -------
        CVResult
            With the same scores, bit for bit. Parameters of failures that are no number, text, bool or None
            are texts, and warnings of a class that is not imported here are `UserWarning`.

        Raises
        ------
        InvalidInputError
            If the file holds no result.

        Examples
        --------
        >>> import anyfold as af
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from tempfile import TemporaryDirectory
        >>> result = af.run_cv(GaussianNB(), af.Folds(*load_iris(return_X_y=True)), backend="serial")
        >>> with TemporaryDirectory() as folder:
        ...     result.save(f"{folder}/result.npz")
        ...     again = af.CVResult.load(f"{folder}/result.npz")
        >>> again["gaussiannb"]["test_score"].round(3).tolist()
        [0.933, 0.967, 0.933, 0.933, 1.0]
        """
        return cls(**load_result(path))

    @cached_property
    def ranked_models(self) -> tuple[str, ...]:
        """Names of the models, the best by the first metric first."""
        return ranked_models(self._grid, self.metrics[0])

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

    def plot(self, metric: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw the scores of all models on all folds.

        One row per model, the best at the top: a point per fold, mean and standard deviation beside
        them, and a light line per fold from model to model, since models are compared on the same folds.

        Parameters
        ----------
        metric : str, default=None
            Name of the metric; None is the first.
        ax : Axes, default=None
            Where to draw; None makes a figure of its own. Needs matplotlib: ``anyfold[plot]``.

        Returns
        -------
        Axes
            What was drawn on.
        """
        from anyfold.results.plotting import plot_scores

        return plot_scores(self._grid, one_of("metric", metric, self.metrics), ax)

    def plot_timeline(self, ax: Axes | None = None) -> Axes:
        """Draw what ran where and when.

        One lane per worker, a bar per task coloured by model, failed tasks hatched; where a lane is
        bare its worker was idle.

        Parameters
        ----------
        ax : Axes, default=None
            Where to draw; None makes a figure of its own. Needs matplotlib: ``anyfold[plot]``.

        Returns
        -------
        Axes
            What was drawn on.
        """
        from anyfold.results.timeline import plot_timeline

        return plot_timeline(list(self._grid), self.ranked_models, ax)
