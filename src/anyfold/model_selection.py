"""Drop-in searches and validations of scikit-learn's, on any backend.

Import from here instead of `sklearn.model_selection`: classes and functions take the same parameters, have
the same attributes and give the same numbers. They take anyfold's settings too, and fit what candidates
have in common only once on each fold.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import sklearn.model_selection as theirs
from sklearn.experimental import enable_halving_search_cv  # noqa: F401

from anyfold import _compat
from anyfold._parallel import Parallel, clone_unless_drawn, evaluated_with

__all__ = [
    "GridSearchCV",
    "HalvingGridSearchCV",
    "HalvingRandomSearchCV",
    "RandomizedSearchCV",
    "cross_val_predict",
    "cross_val_score",
    "cross_validate",
    "learning_curve",
    "permutation_test_score",
    "validation_curve",
]

SETTINGS = ("backend", "inner_threads", "timeout", "time_limit", "retries", "journal", "progress")
"""What searches and validations take beside the parameters of scikit-learn's."""

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

_fit = _compat.search_fit(Parallel=Parallel, clone=clone_unless_drawn)


class _Search(_compat.base_search()):  # type: ignore[misc]
    """Hands the work of a search to anyfold."""

    backend: Any

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Evaluate all candidates on all folds, and fit the best one on all data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or a list of n_samples items
            The data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            The target.
        **params : object
            Passed to ``fit`` of the estimator, to the scorer and to the splitter, as scikit-learn does.

        Returns
        -------
        self : object
            The fitted search.
        """
        settings = {name: getattr(self, name) for name in SETTINGS}
        with evaluated_with(settings, type(self).__name__) as saved:
            _fit(self, X, y, **params)
        self.n_shared_fits_ = saved.n_fits
        self.saved_time_ = saved.seconds
        return self

    def __sklearn_clone__(self) -> Any:
        executor = self.backend
        if executor is None or isinstance(executor, str):
            return super().__sklearn_clone__()
        self.backend = None  # an executor is not copied
        try:
            copy = super().__sklearn_clone__()
        finally:
            self.backend = executor
        copy.backend = executor
        return copy

    def __getstate__(self) -> Any:
        state = super().__getstate__()
        backend = state.get("backend")
        return state if backend is None or isinstance(backend, str) else {**state, "backend": None}


def _with_settings(ours: C) -> C:
    """Give a search the parameters of scikit-learn's and ours, and say in its docstring what they are."""
    base: Any = ours.__bases__[0]
    take_theirs = base.__init__
    parameters = inspect.signature(take_theirs).parameters.values()
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in SETTINGS]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name, None) for name in SETTINGS}
        take_theirs(self, *args, **kwargs)
        for name, value in given.items():
            setattr(self, name, value)

    __init__.__signature__ = inspect.Signature([*parameters, *added])  # type: ignore[attr-defined]
    ours.__init__ = __init__  # type: ignore[misc]
    first, _, examples = (ours.__doc__ or "").partition("\n\n")
    ours.__doc__ = f"{first}\n{_MORE_OF_CLASSES.format(name=base.__name__)}\n{examples}"
    return ours


_SETTINGS_DOC = """
    Parameters
    ----------
    *args, **kwargs : object
        Those of `sklearn.model_selection.{name}`. ``n_jobs`` says how many workers there are,
        ``pre_dispatch`` has no meaning here.
    backend : str, Executor or None, default=None
        Where the work is done; None leaves it to anyfold's settings, as it does for the others.
    inner_threads : int, default=None
        Threads inside each fit.
    timeout : float, default=None
        Seconds that one fit on one fold may take.
    time_limit : float, default=None
        Seconds for all; what was not reached fails.
    retries : int, default=None
        How often a fit is run again whose worker was lost.
    journal : str or path, default=None
        A file in which finished work is kept, so that an interrupted call goes on from there.
    progress : bool, default=None
        Whether a bar is drawn.
    """

_MORE_OF_CLASSES = (
    """
    All parameters, attributes and methods are those of `sklearn.model_selection.{name}`, and so are the
    numbers where random states are given. Steps of pipelines that candidates have in common are fitted once
    on each fold; ``fit_time`` counts them for each candidate all the same.
"""
    + _SETTINGS_DOC
    + """
    Attributes
    ----------
    n_shared_fits_ : int
        How many fits of steps were not needed, since another candidate had made the same.
    saved_time_ : float
        Seconds of work that this saved.
    """
)


@_with_settings
class GridSearchCV(theirs.GridSearchCV, _Search):  # type: ignore[misc]
    """Search over all combinations of given values.

    Examples
    --------
    >>> from anyfold.model_selection import GridSearchCV
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(PCA(2), LogisticRegression(max_iter=500))
    >>> grid = {"logisticregression__C": [0.01, 1.0]}
    >>> search = GridSearchCV(model, grid, cv=3, backend="serial").fit(X, y)
    >>> search.best_params_
    {'logisticregression__C': 1.0}
    >>> search.n_shared_fits_
    3
    """


@_with_settings
class RandomizedSearchCV(theirs.RandomizedSearchCV, _Search):  # type: ignore[misc]
    """Search over combinations drawn at random.

    Examples
    --------
    >>> from anyfold.model_selection import RandomizedSearchCV
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(PCA(2), LogisticRegression(max_iter=500))
    >>> grid = {"logisticregression__C": [0.01, 1.0]}
    >>> search = RandomizedSearchCV(model, grid, n_iter=2, cv=3, random_state=0, backend="serial").fit(X, y)
    >>> search.best_params_
    {'logisticregression__C': 1.0}
    """


@_with_settings
class HalvingGridSearchCV(theirs.HalvingGridSearchCV, _Search):  # type: ignore[misc]
    """Search over all combinations, the better ones on more and more resources.

    Examples
    --------
    >>> from anyfold.model_selection import HalvingGridSearchCV
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(PCA(2), LogisticRegression(max_iter=500))
    >>> grid = {"logisticregression__C": [0.01, 1.0]}
    >>> search = HalvingGridSearchCV(model, grid, cv=3, random_state=0, backend="serial").fit(X, y)
    >>> search.best_params_
    {'logisticregression__C': 1.0}
    """


@_with_settings
class HalvingRandomSearchCV(theirs.HalvingRandomSearchCV, _Search):  # type: ignore[misc]
    """Search over combinations drawn at random, the better ones on more and more resources.

    Examples
    --------
    >>> from anyfold.model_selection import HalvingRandomSearchCV
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(PCA(2), LogisticRegression(max_iter=500))
    >>> drawn_from = {"logisticregression__C": loguniform(0.001, 10)}
    >>> search = HalvingRandomSearchCV(model, drawn_from, cv=3, random_state=0, backend="serial").fit(X, y)
    >>> search.n_candidates_
    [8, 3]
    """


def _on_anyfold(theirs: F, **names: Any) -> F:
    """Return a function of scikit-learn's that takes anyfold's settings and runs on its backends."""
    run = _compat.with_validated_params(_compat.with_names(theirs, Parallel=Parallel, **names), theirs)
    parameters = inspect.signature(theirs).parameters
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in SETTINGS]

    @functools.wraps(theirs)
    def function(*args: Any, **kwargs: Any) -> Any:
        settings = {name: kwargs.pop(name, None) for name in SETTINGS}
        with evaluated_with(settings, theirs.__name__):
            return run(*args, **kwargs)

    function.__module__ = __name__
    function.__signature__ = inspect.Signature([*parameters.values(), *added])  # type: ignore[attr-defined]
    function.__doc__ = _FUNCTION_DOC.format(name=theirs.__name__, example=_EXAMPLES[theirs.__name__])
    return function  # type: ignore[return-value]


_FUNCTION_DOC = (
    """`sklearn.model_selection.{name}` on any backend of anyfold.

    All parameters, numbers and what is returned are scikit-learn's.
"""
    + _SETTINGS_DOC
    + """
    Examples
    --------
    >>> from anyfold.model_selection import {name}
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LogisticRegression(max_iter=500)
{example}
    """
)

_EXAMPLES = {
    "cross_validate": """\
    >>> cross_validate(model, X, y, cv=3, backend="serial")["test_score"].round(2).tolist()
    [0.98, 0.96, 0.98]""",
    "cross_val_score": """\
    >>> cross_val_score(model, X, y, cv=3, backend="serial").round(2).tolist()
    [0.98, 0.96, 0.98]""",
    "cross_val_predict": """\
    >>> cross_val_predict(model, X, y, cv=3, backend="serial").shape
    (150,)""",
    "learning_curve": """\
    >>> sizes, train, test = learning_curve(
    ...     model, X, y, train_sizes=[0.5, 1.0], cv=3, shuffle=True, random_state=0, backend="serial"
    ... )
    >>> sizes.tolist(), test.shape
    ([50, 100], (2, 3))""",
    "permutation_test_score": """\
    >>> score, permuted, p_value = permutation_test_score(
    ...     model, X, y, cv=3, n_permutations=4, random_state=0, backend="serial"
    ... )
    >>> float(p_value)
    0.2""",
    "validation_curve": """\
    >>> train, test = validation_curve(
    ...     model, X, y, param_name="C", param_range=[0.01, 1.0], cv=3, backend="serial"
    ... )
    >>> test.mean(axis=1).round(2).tolist()
    [0.87, 0.97]""",
}

cross_validate = _on_anyfold(theirs.cross_validate)
cross_val_score = _on_anyfold(
    theirs.cross_val_score, cross_validate=_compat.with_names(theirs.cross_validate, Parallel=Parallel)
)
cross_val_predict = _on_anyfold(theirs.cross_val_predict)
learning_curve = _on_anyfold(theirs.learning_curve)
permutation_test_score = _on_anyfold(theirs.permutation_test_score)
validation_curve = _on_anyfold(theirs.validation_curve)
