"""What is made of a result for people: comparisons, pictures, files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import NDArray

from anyfold.results.comparison import comparison_frame
from anyfold.results.grid import OutcomeGrid
from anyfold.results.lookup import check_model, one_of
from anyfold.results.saving import load_result, save_result
from anyfold.results.tables import ranked_models, slowest_frame

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["Views"]


class Views:
    """The part of `CVResult` that compares, draws and saves what the other part holds."""

    models: Sequence[str]
    metrics: Sequence[str]
    splits: Sequence[tuple[NDArray[Any], NDArray[Any]]]
    _grid: OutcomeGrid

    @cached_property
    def ranked_models(self) -> tuple[str, ...]:
        """Names of the models, the best by the first metric first."""
        return ranked_models(self._grid, self.metrics[0])

    def compare(self, baseline: str | None = None, metric: str | None = None) -> pd.DataFrame:
        """Compare all models with one of them on the same folds.

        The test is the corrected resampled t-test of Nadeau and Bengio [1]_, which takes into account that
        the training sets of folds overlap; without that almost everything seems significant. It was made for
        repeated random splits, and is an approximation for k folds.

        Parameters
        ----------
        baseline : str, default=None
            Name of the model that the others are compared with; None is the best by the metric.
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
        of = one_of("metric", metric, self.metrics)
        name = ranked_models(self._grid, of)[0] if baseline is None else baseline
        check_model(name, self.models)
        n_test, n_train = (sum(len(split[part]) for split in self.splits) for part in (1, 0))
        scores = self._grid.scores(of)
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

        Examples
        --------
        >>> import anyfold as af
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> folds = af.Folds(*load_iris(return_X_y=True), cv=3)
        >>> result = af.run_cv({"nb": GaussianNB()}, folds, backend="serial", random_state=0)
        >>> result.slowest(1).columns[:3].tolist()
        ['model', 'fold', 'seconds']
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
    def load(cls, path: str | os.PathLike[str]) -> Self:
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

        Examples
        --------
        >>> import anyfold as af
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> folds = af.Folds(*load_iris(return_X_y=True), cv=3)
        >>> result = af.run_cv({"nb": GaussianNB()}, folds, backend="serial", random_state=0)
        >>> result.plot().get_xlabel()
        'score'
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

        Examples
        --------
        >>> import anyfold as af
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> folds = af.Folds(*load_iris(return_X_y=True), cv=3)
        >>> result = af.run_cv({"nb": GaussianNB()}, folds, backend="serial", random_state=0)
        >>> result.plot_timeline().get_title(loc="left").split(",")[0]
        '3 tasks on 1 worker'
        """
        from anyfold.results.timeline import plot_timeline

        return plot_timeline(list(self._grid), self.ranked_models, ax)
