"""One evaluation: all candidates of one estimator on all folds, as one run of the engine.

Scikit-learn calls a function for each candidate and fold; here these calls become leaves, and their outcomes
the dictionaries that it waits for.
"""

from __future__ import annotations

import inspect
import itertools
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from sklearn.base import clone

from anyfold import _compat
from anyfold._data.slices import check_slices_fit
from anyfold._engine.journal import Terms
from anyfold._engine.resume import Resumption
from anyfold._engine.sharing import share
from anyfold._plan.content import content_keys
from anyfold._plan.order import Order, remember
from anyfold._plan.prefix import Path, Steps, layout
from anyfold._plan.scoring import metric_names
from anyfold._plan.seeds import root_seed
from anyfold._plan.task import FoldScores, Leaf, Outcome, TaskKey
from anyfold._reply import FitAndScore, Replies, exception_of
from anyfold._running import Prepared, run_work
from anyfold._session import Workers, conditions, open_journal
from anyfold._worker.cross_validate import CrossValidation, FoldData, ModelPlan, SplitAnew
from anyfold._worker.execute import inherited_seed
from anyfold.errors import MemoryPressureWarning
from anyfold.executors.base import Shared
from anyfold.settings import Resolved

__all__ = ["Drawn", "Evaluation", "Publish", "Saved"]

Publish = Callable[[Any, Any, Workers], Shared[FoldData]]
"""Publishes data for the length of a search, or says where it is."""
Drawn = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""A function and what it is called with."""


@dataclass(slots=True)
class Saved:
    """What sharing steps has saved during one call."""

    n_fits: int = 0
    seconds: float = 0.0


class _Data:
    """Data and the splits that calls name, for the keys of a journal."""

    def __init__(self, X: Any, y: Any) -> None:
        self.X, self.y = X, y
        self.splits: list[tuple[np.ndarray, np.ndarray]] = []


ALIKE = ("X", "y", "scorer", "fit_params", "score_params", "return_train_score", "return_estimator")
"""Parameters of scikit-learn's function that are the same object in all calls of an evaluation."""


class Evaluation:
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
        publish: Publish,
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

    def take(self, drawn: Iterator[Drawn]) -> Drawn | None:
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
        if warning := check_slices_fit(first.X, first.y, sizes, workers.may_be):
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
            error_score = np.nan if self._raises else first.error_score
            data_id = f"evaluation {id(self)} {time.monotonic_ns()}"
            resumption = None
            if journal is not None:
                contents = content_keys(
                    map(self._leaf, self._keys),
                    {self._name: plan},
                    self._data,
                    data_id,
                    conditions(settings, root, first.return_train_score),
                )
                terms = Terms(
                    first.return_estimator,
                    False,
                    None if self._raises else error_score,
                    metric_names(first.scorer),
                    first.return_train_score,
                )
                resumption = Resumption(journal, contents, terms)
                outcomes.update(resumption.taken)
            labels = self._labels()
            published: list[Shared[Any]] = []

            def prepare(workers: Workers) -> Prepared:
                splits = share(workers.executor, tuple(self._data.splits), workers.temp_dir)
                shared = SplitAnew(self._publish(first.X, first.y, workers), splits)
                published.append(shared)
                work = CrossValidation(
                    data=shared,
                    data_id=data_id,
                    models={self._name: plan},
                    root_seed=root,
                    raise_errors=self._raises,
                    error_score=error_score,
                    return_train_score=first.return_train_score,
                    return_estimator=first.return_estimator,
                    response_methods=(),
                )
                shape = layout(paths, len(self._data.splits), workers.n_workers)
                order = Order(self._keys, shape, outcomes, labels, workers.n_workers)
                return Prepared(work, map(self._leaf, order), order.n_left, shape)

            try:
                run_work(
                    prepare,
                    workers=workers,
                    settings=settings,
                    root_seed=root,
                    stop_on_failure=self._raises,
                    outcomes=outcomes,
                    record=None if resumption is None else resumption.record,
                    rank={key: position for position, key in enumerate(self._keys)},
                )
                remember(self._keys, outcomes, labels)
            finally:
                for shared in published:
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
