"""`fit_models`: many models at once, each on all of its data."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Unpack

from anyfold._data.sizes import nbytes_of
from anyfold._engine.sharing import Direct, Packed
from anyfold._plan.models import check_lengths, cloned, is_estimator, name_models, near
from anyfold._plan.order import Order, remember
from anyfold._plan.prefix import layout
from anyfold._plan.routing import check_accepted
from anyfold._plan.seeds import root_seed
from anyfold._plan.task import REFIT, Leaf, Outcome, TaskKey
from anyfold._plan.units import window_size
from anyfold._running import Prepared, run_work
from anyfold._session import (
    Workers,
    check_resources,
    open_workers,
    refuse_journal,
    share_data,
    share_model,
)
from anyfold._worker.execute import inherited_seed
from anyfold._worker.fits import Fits, NotSent, TrainingData, taken_apart
from anyfold.errors import InvalidInputError, UnpicklableModelError
from anyfold.executors.base import Shared, isolation_of
from anyfold.results import FittedModels
from anyfold.results.verdict import raise_or_warn_of_fits
from anyfold.settings import Settings, resolve, with_settings_signature

__all__ = ["fit_models"]


@with_settings_signature
def fit_models(
    models: Any,
    X: Any = None,
    y: Any = None,
    *,
    data: Mapping[str, Any] | None = None,
    params: Mapping[str, Any] | None = None,
    on_error: str = "warn",
    random_state: Any = None,
    **settings: Unpack[Settings],
) -> FittedModels:
    """Fit many models at once, each on all of its data.

    All models are fitted on `X` and `y`, but for those that bring data of their own::

        fit_models({"rf": forest, "logit": logistic}, X, y)
        fit_models({"mon": forest, "tue": linear}, data={"mon": (X1, y1), "tue": (X2, y2)})
        fit_models(forest, data={"mon": (X1, y1), "tue": load_tuesday})    # one estimator, on each

    Data that several models use is sent once. Where it is large and can be read anywhere, give a function
    that makes it: it is called on the worker that fits the model, and nothing is sent.

    Parameters
    ----------
    models : estimator, list of estimators, or mapping of str to estimator
        What to fit. A list is named as `sklearn.pipeline.make_pipeline` names steps; one estimator beside
        `data` is fitted on each entry of it, under its name. The estimators are cloned, never fitted.
    X : array-like of shape (n_samples, n_features), or a list of n_samples items, default=None
        Data of the models that have no entry in `data`. Not copied; workers read it and cannot change it.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Their target.
    data : mapping of str to tuple or callable, default=None
        By the name of a model: ``(X, y)``; ``(X, y, params)`` with parameters for its ``fit`` alone; or a
        function without arguments that returns either. ``y`` may be None.
    params : mapping of str to object, default=None
        Passed to each ``fit``, such as ``sample_weight``.
    on_error : {"warn", "raise"}, default="warn"
        Whether models that fail are told of in one `FitFailedWarning`, while the others are fitted, or the
        first error, in the order of the models, is raised. Where all fail it is raised in any case.
    random_state : int, RandomState, Generator or None, default=None
        Root of all seeds: each ``random_state`` of a model that is None gets a seed that depends on this and
        on the path of the parameter, and on nothing else. None draws a root, which the result records.
        ``ANYFOLD_RANDOM_STATE`` sets the default.
    **settings : Settings
        How to run. The argument ``journal`` is refused: it keeps no fitted models.

    Returns
    -------
    FittedModels
        A mapping from names to fitted models, with what each took and which failed.

    Raises
    ------
    InvalidInputError
        If models, data or params cannot be used; before any work starts.
    InvalidSettingError
        If a setting cannot be used.
    UnsupportedFeatureError
        If the backend cannot do what a setting asks for, or if a ``journal`` is given.
    KeyboardInterrupt
        On Ctrl-C, with the models that had been fitted as its attribute ``result``, a `FittedModels`.

    Examples
    --------
    >>> import anyfold as af
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> models = {"logit": LogisticRegression(max_iter=500), "tree": DecisionTreeClassifier()}
    >>> fitted = af.fit_models(models, X, y, random_state=0, backend="serial")
    >>> fitted["tree"].predict(X[:3]).tolist()
    [0, 0, 0]

    One estimator on several data:

    >>> halves = {"even": (X[::2], y[::2]), "odd": (X[1::2], y[1::2])}
    >>> fitted = af.fit_models(LogisticRegression(max_iter=500), data=halves, backend="serial")
    >>> {name: round(model.score(X, y), 3) for name, model in fitted.items()}
    {'even': 0.96, 'odd': 0.973}
    """
    resolved = resolve(settings, caller=fit_models)
    refuse_journal(resolved, "a journal keeps scores, no fitted models; save those yourself")
    if on_error not in ("warn", "raise"):
        raise InvalidInputError(f"on_error={on_error!r}: allowed are 'warn' and 'raise'")
    if isinstance(data, Mapping) and data and is_estimator(models):
        models = dict.fromkeys(data, models)
    named = name_models(models)
    sources = _sources(named, X, y, data, params or {})
    check_resources(resolved, named)
    clones = {name: cloned(name, model) for name, model in named.items()}
    given = resolved.random_state if random_state is None else random_state
    root = root_seed(inherited_seed() if given is None else given)
    keys = [TaskKey(name, 0, REFIT) for name in named]
    outcomes: dict[TaskKey, Outcome] = {}
    started = time.perf_counter()

    def result(workers: Workers, *, interrupted: bool) -> FittedModels:
        return FittedModels(
            outcomes.values(),
            models=tuple(named),
            random_state=root,
            backend=workers.ran_on,
            n_jobs=workers.most_workers,
            choice=workers.why,
            wall_time=time.perf_counter() - started,
            parameters={name: model.get_params(deep=False) for name, model in named.items()},
            interrupted=interrupted,
        )

    workers: Workers | None = None
    try:
        with open_workers(resolved, may_move=True) as workers:
            labels = {(name, 0): ("fit", name, type(model)) for name, model in named.items()}

            def prepare(workers: Workers) -> Prepared:
                in_processes = isolation_of(workers.executor) == "process"
                sending = _Sending(clones, sources, workers)
                order = Order(keys, layout({}, 1, workers.n_workers), outcomes, labels, workers.n_workers)
                return Prepared(
                    Fits(root, os.getpid() if in_processes else None),
                    (Leaf(key, sending.all_of(key.model)) for key in order),
                    order.n_left,
                    largest_unit=max(1, MOST_SENT // window_size(workers.n_workers)),
                )

            run_work(
                prepare,
                workers=workers,
                settings=resolved,
                root_seed=root,
                stop_on_failure=on_error == "raise",
                outcomes=outcomes,
                record=None,
                rank={key: position for position, key in enumerate(keys)},
            )
            remember(keys, outcomes, labels)
        complete = result(workers, interrupted=len(outcomes) < len(keys))
    except KeyboardInterrupt as interrupt:
        if workers is not None:
            partial = interrupt.result = result(workers, interrupted=True)  # type: ignore[attr-defined]
            interrupt.add_note(
                f"{len(partial)} of {len(keys)} models had been fitted: they are in the result attribute of "
                "this exception"
            )
        raise
    raise_or_warn_of_fits(complete, on_error)
    return complete


_Source = tuple[Any, Any, Mapping[str, Any]] | Callable[[], Any]


def _sources(
    models: Mapping[str, Any], X: Any, y: Any, data: Mapping[str, Any] | None, params: Mapping[str, Any]
) -> dict[str, tuple[_Source, Mapping[str, Any]]]:
    """Return for each model what it is fitted on, and the parameters of all ``fit``, checked."""
    if data is not None and not isinstance(data, Mapping):
        raise InvalidInputError(
            f"data is {type(data).__name__}, not a mapping from names of models to (X, y); "
            "what all models are fitted on is X and y"
        )
    own = {} if data is None else dict(data)
    for name in own:
        if name not in models:
            raise InvalidInputError(
                f"data has an entry for {name!r}, which is no model{near(str(name), models)}: "
                f"the models are {list(models)}"
            )
    without = [name for name in models if name not in own]
    if without and X is None:
        raise InvalidInputError(f"model {without[0]!r} has no data: pass X and y, or an entry of data for it")
    if not without and (X is not None or y is not None):
        raise InvalidInputError(
            "all models have data of their own: leave out X and y, which would not be used"
        )
    if without:
        check_lengths(X=X, y=y)
    sources: dict[str, tuple[_Source, Mapping[str, Any]]] = {}
    for name, model in models.items():
        source = own.get(name, (X, y))
        if callable(source):
            check_accepted(name, model, params)
            sources[name] = source, params
            continue
        own_X, own_y, own_params = taken_apart(source, f"data[{name!r}]")
        if name in own:
            _check_own(name, own_X, own_y)
        merged = {**params, **own_params} if own_params else params
        check_accepted(name, model, merged)
        sources[name] = (own_X, own_y, merged), {}
    return sources


def _check_own(name: str, X: Any, y: Any) -> None:
    try:
        check_lengths(X=X, y=y)
    except InvalidInputError as error:
        raise InvalidInputError(f"data[{name!r}]: {error}") from None


SMALL = 1 << 16
"""Bytes of a model, or of data, that travel with the task: a file for them alone would cost more."""

MOST_SENT = 128
"""Models at a time whose own data is published: it takes up to three files each."""


class _Sending:
    """Makes models ready for the way, and publishes data when the first task that needs it is drawn.

    What is published lives as long as its handle, which the tasks hold: never more is there than what
    tasks at work need, and what several models have in common is there once. What cannot be sent is a
    failure of the models that need it.
    """

    def __init__(
        self,
        models: Mapping[str, Any],
        sources: Mapping[str, tuple[_Source, Mapping[str, Any]]],
        workers: Workers,
    ) -> None:
        self._models = models
        self._sources = sources
        self._workers = workers
        self._shared: dict[int, Shared[Any]] = {}
        parts = (part for name in sources for part in self._parts(name))
        self._n_uses = Counter(id(part) for part in parts)

    def all_of(self, name: str) -> Mapping[str, Any]:
        """Return what the task of a model is given."""
        return {"model": self._model(name), "data": self._data(name)}

    def _model(self, name: str) -> Shared[Any]:
        model = self._models[name]
        if isolation_of(self._workers.executor) != "process":
            return Direct(model)
        with suppress(Exception):  # share_model says better what is wrong
            packed = Packed.of(model)
            if len(packed.pickled) <= SMALL:
                return packed
        try:
            return share_model(self._workers, model, name)
        except UnpicklableModelError as error:
            return NotSent(f"{error}. Backends 'serial' and 'threads' need not send models")

    def _data(self, name: str) -> TrainingData:
        source, _ = self._sources[name]
        X, y, params = map(self._published, self._parts(name))
        return TrainingData(X, y, params, source if callable(source) else None)

    def _travels(self, part: Any) -> bool:
        in_process = isolation_of(self._workers.executor) != "process"
        return not in_process and self._n_uses[id(part)] == 1 and nbytes_of(part) <= SMALL

    def _parts(self, name: str) -> tuple[Any, Any, Any]:
        source, params = self._sources[name]
        X, y, own = (None, None, params) if callable(source) else source
        return X, y, own or None

    def _published(self, part: Any) -> Shared[Any] | None:
        if part is None:
            return None
        shared: Shared[Any] | None = self._shared.get(id(part))
        if shared is None and self._travels(part):
            with suppress(Exception):  # share says better what is wrong
                return Packed.of(part)
        if shared is None:
            try:
                shared = share_data(self._workers, part, "data")
            except UnpicklableModelError as error:
                shared = NotSent(str(error))
            self._shared[id(part)] = shared
        self._n_uses[id(part)] -= 1
        if not self._n_uses[id(part)]:
            del self._shared[id(part)]
        return shared
