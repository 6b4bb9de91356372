"""Stands in for joblib where scikit-learn's searches and validations hand out their work.

    scikit-learn:  Parallel(n_jobs)(delayed(_fit_and_score)(clone(estimator), X, y, train=…, …) for …)
                       │ this one
                       ▼
    one plan: candidates and folds ──> the engine, on any backend ──> the dictionaries that it waits for

Everything before and after is scikit-learn's own code. Calls of other functions are run as they are.
"""

from __future__ import annotations

import inspect
import itertools
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from sklearn.base import clone

from anyfold import _compat
from anyfold._data.serialize import loads
from anyfold._data.slices import check_slices_fit
from anyfold._engine.journal import Terms
from anyfold._engine.resume import Resumption
from anyfold._engine.sharing import Direct, share
from anyfold._plan.content import content_keys
from anyfold._plan.order import Order
from anyfold._plan.prefix import Path, Steps, layout
from anyfold._plan.scoring import metric_names
from anyfold._plan.seeds import root_seed
from anyfold._plan.task import FoldScores, Leaf, Outcome, TaskKey
from anyfold._reply import MISSING, FitAndScore, Replies, exception_of
from anyfold._session import Workers, conditions, open_journal, open_workers, refuse_journal, run_work
from anyfold._worker.calls import Call, Calls
from anyfold._worker.cross_validate import CrossValidation, FoldData, ModelPlan, SplitAnew
from anyfold._worker.execute import inherited_seed
from anyfold.errors import MemoryPressureWarning
from anyfold.executors.base import Shared, isolation_of
from anyfold.settings import Resolved, resolve

__all__ = ["Parallel", "Saved", "clone_unless_drawn", "evaluated_with"]


@dataclass(slots=True)
class Saved:
    """What sharing steps has saved during one call."""

    n_fits: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _How:
    settings: Mapping[str, Any]
    caller: str
    saved: Saved


_how: ContextVar[_How] = ContextVar("anyfold_evaluation")


@contextmanager
def evaluated_with(settings: Mapping[str, Any], caller: str) -> Iterator[Saved]:
    """Say how the work inside is to be run; yields what was saved, filled in as it goes on."""
    saved = Saved()
    token = _how.set(_How(settings, caller, saved))
    try:
        yield saved
    finally:
        _how.reset(token)


_Publish = Callable[[Any, Any], Shared[FoldData]]
_Drawn = tuple[Any, tuple[Any, ...], dict[str, Any]]
_drawing: ContextVar[bool] = ContextVar("anyfold_drawing", default=False)


def clone_unless_drawn(estimator: Any, *, safe: bool = True) -> Any:
    """Clone an estimator, but not for a call that is being drawn: the worker makes a clone of its own."""
    return estimator if _drawing.get() and safe else clone(estimator, safe=safe)


def _drawn_from(calls: Iterable[Any]) -> Iterator[_Drawn]:
    iterator = iter(calls)
    while True:
        token = _drawing.set(True)
        try:
            fn, *rest = next(iterator)
        except StopIteration:
            return
        finally:
            _drawing.reset(token)
        yield getattr(fn, "function", fn), *rest


class _Data:
    """Data and the splits that calls name, for the keys of a journal."""

    def __init__(self, X: Any, y: Any) -> None:
        self.X, self.y = X, y
        self.splits: list[tuple[np.ndarray, np.ndarray]] = []


class Parallel:
    """Runs what scikit-learn would give to joblib.

    Parameters
    ----------
    n_jobs : int, optional
        As in scikit-learn; None leaves it to the settings.
    **ignored : object
        What concerns joblib only, such as ``pre_dispatch``.
    """

    def __init__(self, n_jobs: int | None = None, **ignored: Any) -> None:
        how = _how.get()
        given = {name: value for name, value in how.settings.items() if value is not None}
        if n_jobs is not None:
            given["n_jobs"] = n_jobs
        self._settings = resolve(given, caller=how.caller)
        self._saved = how.saved
        self._stack: ExitStack | None = None
        self._workers: Workers | None = None
        self._published: list[tuple[Any, Any, Shared[FoldData]]] = []

    def __enter__(self) -> Parallel:
        self._stack = ExitStack()
        self._workers = self._stack.enter_context(open_workers(self._settings))
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._stack is not None
        self._stack.callback(self._published.clear)
        for _, _, shared in self._published:
            self._stack.callback(shared.release)
        self._stack.close()
        self._stack = self._workers = None

    def __call__(self, calls: Iterable[Any]) -> list[Any]:
        """Run calls and return what each came to, in their order."""
        if self._workers is None:
            with self:
                return self(calls)
        results: list[Any] = []
        drawn = _drawn_from(calls)
        call = next(drawn, None)
        while call is not None:
            evaluation = _evaluation_of(call, self._settings, self._workers, self._saved, self._publish)
            if evaluation is None:
                rest = [_with_own_estimator(one) for one in (call, *drawn)]
                return results + _run_calls(rest, self._settings, self._workers)
            call = evaluation.take(drawn)
            results += evaluation.run()
        return results

    def _publish(self, X: Any, y: Any) -> Shared[FoldData]:
        """Publish data for as long as the workers are kept, so that the next round finds it there."""
        for known_X, known_y, shared in self._published:
            if known_X is X and known_y is y:
                return shared
        assert self._workers is not None
        shared = share(self._workers.executor, FoldData(X, y, ()), self._workers.temp_dir)
        self._published.append((X, y, shared))
        return shared


def _evaluation_of(
    drawn: _Drawn, settings: Resolved, workers: Workers, saved: Saved, publish: _Publish
) -> _Evaluation | None:
    """Return the evaluation that begins with a call; None where it does something else than fit and score."""
    function, args, kwargs = drawn
    if not _compat.is_fit_and_score(function):
        return None
    evaluation = _Evaluation(function, args, kwargs, settings, workers, saved, publish)
    call = evaluation.first
    if getattr(call.arguments.get("caller"), "_skl_callbacks", None) or _has_callbacks(call.estimator):
        return None
    return evaluation


def _with_own_estimator(drawn: _Drawn) -> Call:
    """Return a call as it is; one that fits and scores gets the clone that was not made for it."""
    function, args, kwargs = drawn
    if _compat.is_fit_and_score(function):
        args = (clone(args[0]), *args[1:])
    return Call(function, args, kwargs)


def _has_callbacks(estimator: Any) -> bool:
    parts = [estimator, *estimator.get_params(deep=True).values()]
    return any(getattr(part, "_skl_callbacks", None) for part in parts)


ALIKE = ("X", "y", "scorer", "fit_params", "score_params", "return_train_score", "return_estimator")
"""Parameters of scikit-learn's function that are the same object in all calls of an evaluation."""


class _Evaluation:
    """All candidates of one estimator on all folds.

    Scikit-learn clones the estimator for each call. Of the calls is kept what is different among them.
    """

    def __init__(
        self,
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        settings: Resolved,
        workers: Workers,
        saved: Saved,
        publish: _Publish,
    ) -> None:
        self._function = function
        parameters = inspect.signature(function).parameters.values()
        self._names = [parameter.name for parameter in parameters]
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self.first = first = self._bound(args, kwargs)
        self._settings = settings
        self._workers = workers
        self._saved = saved
        self._publish = publish
        self._name = type(first.estimator).__name__.lower()
        self._raises = isinstance(first.error_score, str)
        self._data = _Data(first.X, first.y)
        self._parameters: dict[int, Mapping[str, Any] | None] = {}
        self._keys: list[TaskKey] = []
        self._used: set[TaskKey] = set()
        self._folds: dict[tuple[int, int], int] = {}
        self._indices: list[tuple[Any, Any]] = []
        self._candidates: dict[int, int] = {}
        self._numbers = itertools.count(1)
        self._progress: list[tuple[Any, Any]] = []
        self._add(first)

    def take(self, drawn: Iterator[_Drawn]) -> _Drawn | None:
        """Take all calls that belong to this evaluation; return the first one that does not."""
        for call in drawn:
            function, args, kwargs = call
            if function is not self._function:
                return call
            bound = self._bound(args, kwargs)
            first = self.first
            if any(getattr(bound, name) is not getattr(first, name) for name in ALIKE):
                return call
            if type(bound.estimator) is not type(first.estimator):
                return call
            self._add(bound)
        return None

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FitAndScore:
        return FitAndScore({**self._defaults, **dict(zip(self._names, args, strict=False)), **kwargs})

    def _add(self, call: FitAndScore) -> None:
        """Give a call its key; candidates and folds are numbered as they come."""
        fold = self._folds.setdefault((id(call.train), id(call.test)), len(self._folds))
        if fold == len(self._data.splits):
            self._indices.append((call.train, call.test))
            self._data.splits.append((np.asarray(call.train), np.asarray(call.test)))
        given = call.parameters
        candidate = 0 if given is None else self._candidates.get(id(given))
        if candidate is None:
            candidate = self._candidates[id(given)] = next(self._numbers)
        key = TaskKey(self._name, candidate, fold)
        while key in self._used:  # the same once more
            candidate = next(self._numbers)
            key = TaskKey(self._name, candidate, fold)
        self._parameters[candidate] = given
        self._used.add(key)
        self._keys.append(key)
        if call.verbose > 1:
            self._progress.append((call.split_progress, call.candidate_progress))

    def run(self) -> list[dict[str, Any]]:
        """Return what scikit-learn's function would have returned for each call."""
        first, settings, workers = self.first, self._settings, self._workers
        self._check_parameters()
        given = settings.random_state if settings.random_state is not None else inherited_seed()
        sizes = [(len(train), len(test)) for train, test in self._data.splits]
        if warning := check_slices_fit(first.X, first.y, sizes, workers.n_workers):
            warnings.warn(warning, MemoryPressureWarning, stacklevel=2)
        paths = self._paths()
        plan = ModelPlan(
            first.estimator,
            first.scorer,
            _compat.is_pairwise(first.estimator),
            first.fit_params or {},
            first.score_params or {},
            shares_steps=any(paths.values()),
        )
        outcomes: dict[TaskKey, Outcome] = {}
        root = root_seed(given)
        with open_journal(settings) as journal:
            if journal is not None and given is None:
                root = journal.root_seed
            splits = share(workers.executor, tuple(self._data.splits), workers.temp_dir)
            shared = SplitAnew(self._publish(first.X, first.y), splits)
            try:
                work = CrossValidation(
                    data=shared,
                    data_id=f"evaluation {id(shared)} {time.monotonic_ns()}",
                    models={self._name: plan},
                    root_seed=root,
                    raise_errors=self._raises,
                    error_score=np.nan if self._raises else first.error_score,
                    return_train_score=first.return_train_score,
                    return_estimator=first.return_estimator,
                    response_methods=(),
                )
                resumption = None
                if journal is not None:
                    contents = content_keys(
                        map(self._leaf, self._keys),
                        work.models,
                        self._data,
                        work.data_id,
                        conditions(settings, root, first.return_train_score),
                    )
                    terms = Terms(
                        first.return_estimator,
                        False,
                        None if self._raises else work.error_score,
                        metric_names(first.scorer),
                        first.return_train_score,
                    )
                    resumption = Resumption(journal, contents, terms)
                    outcomes.update(resumption.taken)
                shape = layout(paths, len(self._data.splits), workers.n_workers)
                order = Order(self._keys, shape, outcomes, self._labels(), workers.n_workers)
                run_work(
                    work,
                    map(self._leaf, order),
                    order.n_left,
                    workers=workers,
                    settings=settings,
                    root_seed=root,
                    stop_on_failure=self._raises,
                    outcomes=outcomes,
                    record=None if resumption is None else resumption.record,
                    rank={key: position for position, key in enumerate(self._keys)},
                    layout=shape,
                )
                order.remember()
            finally:
                shared.release()
        if self._raises:
            done = filter(None, map(outcomes.get, self._keys))
            if (failure := next((o.failure for o in done if o.failure), None)) is not None:
                raise exception_of(failure)
        return list(self._replies(outcomes))

    def _replies(self, outcomes: dict[TaskKey, Outcome]) -> Iterator[dict[str, Any]]:
        replies = Replies(self.first)
        for key, progress in zip_longest(self._keys, self._progress, fillvalue=(None, None)):
            assert isinstance(key, TaskKey)
            outcome = outcomes.pop(key, None)  # of many tasks not all are held twice
            if outcome is not None and isinstance(outcome.value, FoldScores):
                self._saved.n_fits += outcome.value.n_shared
                self._saved.seconds += outcome.value.saved_time
            n_test = len(self._data.splits[key.fold][1])
            yield replies.to(self._parameters[key.candidate], n_test, outcome, progress)

    def _labels(self) -> dict[tuple[str, int], Hashable]:
        """Return what a later search would call each candidate too."""
        kind, size = type(self.first.estimator), len(self._data.splits[0][0])
        return {
            (self._name, candidate): (kind, size, repr(given))
            for candidate, given in self._parameters.items()
        }

    def _leaf(self, key: TaskKey) -> Leaf:
        return Leaf(key, self._parameters[key.candidate])

    def _check_parameters(self) -> None:
        """Let scikit-learn say which parameters do not exist, before any work starts."""
        checked: set[tuple[Any, ...]] = set()
        for given in self._parameters.values():
            # What a parameter of an estimator's is called depends on which estimator it is.
            names = tuple((name, type(value)) for name, value in (given or {}).items())
            if names and names not in checked:
                checked.add(names)
                clone(self.first.estimator).set_params(**clone(dict(given or {}), safe=False))

    def _paths(self) -> dict[tuple[str, int], Path]:
        steps = Steps()
        estimator, last = self.first.estimator, None
        if hasattr(estimator, "steps") and estimator.steps:
            last = f"{estimator.steps[-1][0]}__"
        to_steps = [name for name in self.first.fit_params or {} if last is None or not name.startswith(last)]
        if to_steps or len(self._parameters) < 2:
            return {}
        return {
            (self._name, candidate): steps.path(estimator, given)
            for candidate, given in self._parameters.items()
        }


def _run_calls(calls: list[Call], settings: Resolved, workers: Workers) -> list[Any]:
    """Run calls of any function of scikit-learn's; the first that fails raises, as it would there."""
    instead = "work inside config_context(journal=None)"
    refuse_journal(settings, f"results of {calls[0].name}", instead)
    given = settings.random_state if settings.random_state is not None else inherited_seed()
    keys = [TaskKey(calls[0].name, 0, position) for position in range(len(calls))]
    outcomes: dict[TaskKey, Outcome] = {}
    common, own = Calls.taken_apart(calls)
    in_process = isolation_of(workers.executor) != "process"
    shared = Direct(common) if in_process else share(workers.executor, common, workers.temp_dir)
    root = root_seed(given)
    try:
        run_work(
            Calls(shared),
            (Leaf(key, {"call": call}) for key, call in zip(keys, own, strict=True)),
            len(keys),
            workers=workers,
            settings=settings,
            root_seed=root,
            stop_on_failure=True,
            outcomes=outcomes,
            record=None,
            rank={key: position for position, key in enumerate(keys)},
        )
    finally:
        shared.release()
    for key in keys:
        outcome = outcomes.get(key)
        failure = MISSING if outcome is None else outcome.failure
        if failure is not None:
            raise exception_of(failure)
    return [loads(payload)["value"] for key in keys if (payload := outcomes[key].payload) is not None]
