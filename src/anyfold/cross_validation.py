"""`Folds` and `run_cv`: every model on every fold, on any backend."""

from __future__ import annotations

import numbers
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from sklearn.utils import indexable

from anyfold import _compat
from anyfold._data.slices import check_slices_fit
from anyfold._engine.journal import Terms
from anyfold._engine.resume import Resumption
from anyfold._engine.sharing import share_once
from anyfold._plan.content import content_keys
from anyfold._plan.models import check_lengths, cloned, name_models
from anyfold._plan.order import Order, remember
from anyfold._plan.prefix import Path, Steps, layout
from anyfold._plan.routing import route_params
from anyfold._plan.scoring import check_response_methods, make_scorer_for, metric_names, response_methods
from anyfold._plan.seeds import root_seed
from anyfold._plan.splits import Split, make_splits, make_splitter
from anyfold._plan.task import FoldScores, Leaf, Outcome, TaskKey
from anyfold._running import Prepared, run_work
from anyfold._session import Workers, check_resources, conditions, open_journal, open_workers
from anyfold._worker.cross_validate import CrossValidation, FoldData, ModelPlan
from anyfold._worker.execute import inherited_seed
from anyfold.errors import DataChangedWarning, InvalidInputError, MemoryPressureWarning
from anyfold.results import CVResult
from anyfold.results.verdict import raise_or_warn
from anyfold.settings import Settings, resolve, with_settings_signature

__all__ = ["Folds", "run_cv"]


class Folds:
    """Data and its splits, fixed when it is made.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features), or a list of n_samples items
        Anything that scikit-learn takes: arrays of any order and dtype, sparse matrices, pandas and
        polars frames, lists of text. It is not copied; workers read it and cannot change it.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        The target.
    cv : int, splitter or iterable, default=5
        What scikit-learn's ``cv`` takes: a number of folds, a splitter, or an iterable of
        (train indices, test indices). A splitter is asked once, here.
    groups : array-like of shape (n_samples,), default=None
        Groups for splitters that use them.
    stratify : bool, default=None
        Whether an int `cv` keeps the proportions of classes. None decides by the type of `y`:
        stratified when it is boolean, text, categorical or of integer type with repeated values, never
        when it is floating. The choice stands in the repr.

    Attributes
    ----------
    splits : tuple of (ndarray, ndarray)
        Train and test indices of each fold.
    n_splits : int
        Number of folds.
    n_samples : int
        Number of samples.

    Raises
    ------
    InvalidInputError
        If the data and the folds do not fit together: lengths that differ, an empty train or test set,
        an index out of range, missing labels or a class with too few members under a stratified int `cv`.

    Examples
    --------
    >>> import anyfold as af
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> af.Folds(X, y, cv=3)
    Folds(150 samples, 3 folds, StratifiedKFold(n_splits=3, random_state=None, shuffle=False), \
stratified: y is of integer type with repeated values)
    """

    def __init__(
        self, X: Any, y: Any = None, *, cv: Any = 5, groups: Any = None, stratify: bool | None = None
    ) -> None:
        check_lengths(X=X, y=y, groups=groups)
        self.X, self.y, self.groups = indexable(X, y, groups)
        self.n_samples: int = _compat.num_samples(self.X)
        self.cv, self._choice = make_splitter(cv, self.y, self.groups, stratify)
        self.splits: tuple[Split, ...] = make_splits(self.cv, self.X, self.y, self.groups, self.n_samples)

    @property
    def n_splits(self) -> int:
        """Number of folds."""
        return len(self.splits)

    def __len__(self) -> int:
        return self.n_splits

    def __iter__(self) -> Iterator[Split]:
        return iter(self.splits)

    def __repr__(self) -> str:
        cv = "given indices" if isinstance(self.cv, list) else repr(self.cv)
        choice = "" if self._choice == "as given" else f", {self._choice}"
        folds = "1 fold" if self.n_splits == 1 else f"{self.n_splits} folds"
        return f"Folds({self.n_samples} samples, {folds}, {cv}{choice})"


@with_settings_signature
def run_cv(
    models: Any,
    folds: Folds,
    *,
    scoring: Any = None,
    params: Mapping[str, Any] | None = None,
    return_train_score: bool = False,
    return_estimator: bool = False,
    return_predictions: bool | str | Sequence[str] = False,
    error_score: Any = np.nan,
    random_state: Any = None,
    **settings: Unpack[Settings],
) -> CVResult:
    """Fit and score every model on every fold.

    The numbers are the same, bit for bit, on every backend and with any number of workers. Where all
    random states are given they are scikit-learn's own.

    Parameters
    ----------
    models : estimator, list of estimators, or mapping of str to estimator
        What to compare. A list is named as `sklearn.pipeline.make_pipeline` names steps. The
        estimators are cloned, never fitted.
    folds : Folds
        Data and splits.
    scoring : str, callable, list, tuple, set or dict, default=None
        What scikit-learn's ``scoring`` takes; None uses each estimator's own ``score``.
    params : mapping of str to object, default=None
        Passed to ``fit``; what has one value per sample, such as ``sample_weight``, is sliced with the
        fold. With scikit-learn's metadata routing enabled, also to the scorers that request it.
    return_train_score : bool, default=False
        Whether to score on the training data too.
    return_estimator : bool, default=False
        Whether to keep the fitted estimators.
    return_predictions : bool, str or list of str, default=False
        Out-of-fold predictions to keep: True for ``predict``, or names of response methods.
    error_score : "raise" or number, default=nan
        Score of a fit that fails. With "raise" the first error, in the order of folds and models, is raised.
    random_state : int, RandomState, Generator or None, default=None
        Root of all seeds: each ``random_state`` of a model that is None gets a seed that depends on this,
        on the path of the parameter and on the fold, and on nothing else. None draws a root, which the
        result records. ``ANYFOLD_RANDOM_STATE`` sets the default.
    **settings : Settings
        How to run.

    Returns
    -------
    CVResult
        Scores, times, failures and whatever else was asked for, keyed by model and fold.

    Raises
    ------
    InvalidInputError
        If models, folds, scoring or params cannot be used; before any work starts.
    InvalidSettingError
        If a setting cannot be used.
    UnsupportedFeatureError
        If the backend cannot do what a setting asks for.
    JournalError
        If the journal cannot be used.
    KeyboardInterrupt
        On Ctrl-C, with what had finished as its attribute ``result``, a `CVResult`.

    Examples
    --------
    >>> import anyfold as af
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> models = {"logit": LogisticRegression(max_iter=500), "tree": DecisionTreeClassifier()}
    >>> result = af.run_cv(models, af.Folds(X, y), random_state=0, backend="serial")
    >>> result["logit"]["test_score"].round(3).tolist()
    [0.967, 1.0, 0.933, 0.967, 1.0]
    """
    resolved = resolve(settings, caller=run_cv)
    _check_folds(folds)
    raise_errors = _check_error_score(error_score)
    named = name_models(models)
    methods = response_methods(return_predictions)
    given = resolved.random_state if random_state is None else random_state
    if given is None:
        given = inherited_seed()
    root = root_seed(given)
    plans = {}
    for name, model in named.items():
        scorer = make_scorer_for(name, model, scoring, raise_errors=raise_errors)
        check_response_methods(name, model, methods)
        fit_params, score_params = route_params(name, model, scorer, params or {})
        plans[name] = ModelPlan(
            cloned(name, model), scorer, _is_pairwise(name, model), fit_params, score_params
        )
    paths = _paths(plans)
    for (name, _), path in paths.items():
        plans[name] = replace(plans[name], shares_steps=bool(path))
    keys = [TaskKey(name, 0, fold) for fold in range(folds.n_splits) for name in plans]

    check_resources(resolved, plans)
    classes = _classes(folds.y) if any(method != "predict" for method in methods) else None
    outcomes: dict[TaskKey, Outcome] = {}
    started = time.perf_counter()

    def result(workers: Workers, resumption: Resumption | None, *, interrupted: bool) -> CVResult:
        return CVResult(
            outcomes.values(),
            models=tuple(plans),
            n_folds=folds.n_splits,
            metrics=_metrics(plans, outcomes),
            splits=folds.splits,
            n_samples=folds.n_samples,
            error_score=np.nan if raise_errors else error_score,
            random_state=root,
            backend=workers.ran_on,
            n_jobs=workers.most_workers,
            choice=workers.why,
            wall_time=time.perf_counter() - started,
            parameters={name: model.get_params(deep=False) for name, model in named.items()},
            return_train_score=return_train_score,
            response_methods=methods,
            interrupted=interrupted,
            journal=None if resumption is None else resumption.use,
            classes=classes,
        )

    workers: Workers | None = None
    resumption: Resumption | None = None
    try:
        with open_journal(resolved) as journal, open_workers(resolved, may_move=True) as workers:
            if journal is not None and given is None:
                root = journal.root_seed  # so that the same script finds its work again
            if warning := check_slices_fit(folds.X, folds.y, _sizes(folds), workers.may_be):
                warnings.warn(warning, MemoryPressureWarning, stacklevel=2)
            if journal is not None:
                _, data_id = _share_data(folds, workers)
                contents = content_keys(
                    map(Leaf, keys), plans, folds, data_id, conditions(resolved, root, return_train_score)
                )
                terms = Terms(
                    return_estimator,
                    bool(methods),
                    None if raise_errors else float(error_score),
                    metric_names(next(iter(plans.values())).scorer),
                    return_train_score,
                )
                resumption = Resumption(journal, contents, terms)
                outcomes.update(resumption.taken)
            labels = {(name, 0): (name, type(model), folds.n_samples) for name, model in named.items()}

            def prepare(workers: Workers) -> Prepared:
                data, data_id = _share_data(folds, workers)
                work = CrossValidation(
                    data=data,
                    data_id=data_id,
                    models=plans,
                    root_seed=root,
                    raise_errors=raise_errors,
                    error_score=np.nan if raise_errors else error_score,
                    return_train_score=return_train_score,
                    return_estimator=return_estimator,
                    response_methods=methods,
                )
                shape = layout(paths, folds.n_splits, workers.n_workers)
                order = Order(keys, shape, outcomes, labels, workers.n_workers)
                return Prepared(work, map(Leaf, order), order.n_left, shape)

            run_work(
                prepare,
                workers=workers,
                settings=resolved,
                root_seed=root,
                stop_on_failure=raise_errors,
                outcomes=outcomes,
                record=None if resumption is None else resumption.record,
                rank={key: position for position, key in enumerate(keys)},
            )
            remember(keys, outcomes, labels)
        complete = result(workers, resumption, interrupted=len(outcomes) < len(keys))
    except KeyboardInterrupt as interrupt:
        if workers is not None:
            partial = result(workers, resumption, interrupted=True)
            interrupt.result = partial  # type: ignore[attr-defined]
            interrupt.add_note(
                f"{len(keys) - len(partial.missing)} of {len(keys)} tasks had finished: they are in the "
                "result attribute of this exception; with journal= the next run goes on from there"
            )
        raise
    raise_or_warn(complete, outcomes.values(), error_score)
    return complete


def _paths(plans: Mapping[str, ModelPlan]) -> dict[tuple[str, int], Path]:
    """Return the steps that each model begins with, as far as another one begins with them too."""
    steps = Steps()
    paths = {(name, 0): steps.path(plan.estimator) for name, plan in plans.items() if not plan.fit_params}
    common = Counter(path[:length] for path in paths.values() for length in range(1, len(path) + 1))
    return {
        place: path[: sum(common[path[:length]] > 1 for length in range(1, len(path) + 1))]
        for place, path in paths.items()
    }


def _check_folds(folds: Any) -> None:
    if isinstance(folds, Folds):
        return
    if hasattr(folds, "split"):
        how = f"write anyfold.Folds(X, y, cv={folds!r})"
    elif isinstance(folds, (list, tuple)):
        how = "write anyfold.Folds(X, y, cv=[(train, test), ...])"
    else:
        how = "write anyfold.Folds(X, y, cv=5)"
    raise InvalidInputError(f"folds is {type(folds).__name__}, not Folds: {how}")


def _check_error_score(error_score: Any) -> bool:
    if isinstance(error_score, str) and error_score == "raise":
        return True
    if isinstance(error_score, numbers.Real) and not isinstance(error_score, bool):
        return False
    raise InvalidInputError(
        f"error_score={error_score!r}: allowed are 'raise' and a number, such as numpy.nan"
    )


def _is_pairwise(name: str, model: Any) -> bool:
    try:
        return _compat.is_pairwise(model)
    except AttributeError as error:
        raise InvalidInputError(
            f"model {name!r} ({type(model).__name__}) does not say what kind of estimator it is: derive it "
            "from sklearn.base.BaseEstimator"
        ) from error


def _sizes(folds: Folds) -> list[tuple[int, int]]:
    return [(len(train), len(test)) for train, test in folds.splits]


def _share_data(folds: Folds, workers: Workers) -> tuple[Any, str]:
    data = FoldData(folds.X, folds.y, folds.splits)
    published = share_once(workers.executor, folds, data, workers.temp_dir)
    if published.changed:
        warnings.warn(
            "X or y was changed since this Folds was last used: the data is sent again, the splits stay as "
            "they were. Make new Folds if they should follow",
            DataChangedWarning,
            stacklevel=3,
        )
    return published.shared, published.identity


def _metrics(plans: Mapping[str, ModelPlan], outcomes: Mapping[TaskKey, Outcome]) -> tuple[str, ...]:
    """Return the names of the metrics; a callable that returns a dict must name the same ones each time."""
    known = metric_names(next(iter(plans.values())).scorer)
    if known is not None:
        return known
    first: tuple[TaskKey, tuple[str, ...]] | None = None
    for key, outcome in sorted(outcomes.items()):
        if not isinstance(outcome.value, FoldScores):
            continue
        names = tuple(outcome.value.test)
        if first is None:
            first = (key, names)
        elif set(names) != set(first[1]):
            raise InvalidInputError(
                f"the scorer returned {sorted(names)} for {key}, but {sorted(first[1])} for {first[0]}: "
                "it must return the same keys each time"
            )
    return first[1] if first is not None else ("score",)


def _classes(y: Any) -> Any:
    """Return the classes of all data, by which columns of probabilities are ordered."""
    if y is None:
        return None
    values = y.toarray() if hasattr(y, "toarray") else np.asarray(y)
    try:
        if values.ndim == 1:
            return np.unique(values)
        return [np.unique(values[:, column]) for column in range(values.shape[1])]
    except TypeError:  # labels that cannot be sorted have no order
        return None
