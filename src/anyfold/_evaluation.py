"""Stands in for joblib where scikit-learn's searches and validations hand out their work.

    scikit-learn:  Parallel(n_jobs)(delayed(_fit_and_score)(clone(estimator), X, y, train=…, …) for …)
                       │ this one
                       ▼
    one plan: candidates and folds ──> the engine, on any backend ──> the dictionaries that it waits for

Everything before and after is scikit-learn's own code. Calls of other functions are run as they are.
"""

from __future__ import annotations

import inspect
import sys
import time
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from anyfold import _compat
from anyfold._data.serialize import loads
from anyfold._data.slices import check_slices_fit
from anyfold._engine.journal import Terms
from anyfold._engine.resume import Resumption
from anyfold._engine.sharing import Direct, share
from anyfold._plan.content import content_keys
from anyfold._plan.order import Order
from anyfold._plan.prefix import Path, Steps, layout
from anyfold._plan.seeds import root_seed
from anyfold._plan.task import Failure, FoldScores, Leaf, Outcome, TaskKey
from anyfold._session import Workers, conditions, open_journal, open_workers, run_work
from anyfold._worker.calls import Call, Calls
from anyfold._worker.cross_validate import CrossValidation, FoldData, ModelPlan
from anyfold._worker.execute import inherited_seed
from anyfold.errors import AnyfoldError, MemoryPressureWarning
from anyfold.executors.base import isolation_of
from anyfold.settings import Resolved, resolve

__all__ = ["Parallel", "Saved", "evaluated_with"]


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


@dataclass(frozen=True, slots=True)
class _FitAndScore:
    """One call of scikit-learn's that fits and scores, by the names of its parameters."""

    arguments: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.arguments[name]


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

    def __enter__(self) -> Parallel:
        self._stack = ExitStack()
        self._workers = self._stack.enter_context(open_workers(self._settings))
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._stack is not None
        self._stack.close()
        self._stack = self._workers = None

    def __call__(self, calls: Iterable[Any]) -> list[Any]:
        """Run calls and return what each came to, in their order."""
        if self._workers is None:
            with self:
                return self(calls)
        drawn = [(getattr(fn, "function", fn), args, kwargs) for fn, args, kwargs in calls]
        if not drawn:
            return []
        fits = _fits(drawn)
        if fits is not None:
            return _Evaluation(fits, self._settings, self._workers, self._saved).run()
        return _run_calls([Call(*call) for call in drawn], self._settings, self._workers)


def _fits(drawn: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> list[_FitAndScore] | None:
    """Return the calls as fits of one estimator on one data set; None where they are something else."""
    if not all(_compat.is_fit_and_score(fn) for fn, _, _ in drawn):
        return None
    signature = inspect.signature(drawn[0][0])
    calls = []
    for _, args, kwargs in drawn:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        calls.append(_FitAndScore(bound.arguments))
    first = calls[0]
    alike = ("X", "y", "scorer", "fit_params", "score_params", "return_train_score", "return_estimator")
    if any(getattr(call, name) is not getattr(first, name) for call in calls for name in alike):
        return None
    if any(type(call.estimator) is not type(first.estimator) for call in calls):
        return None
    if getattr(first.arguments.get("caller"), "_skl_callbacks", None) or _has_callbacks(first.estimator):
        return None
    return calls


def _has_callbacks(estimator: Any) -> bool:
    parts = [estimator, *estimator.get_params(deep=True).values()]
    return any(getattr(part, "_skl_callbacks", None) for part in parts)


class _Evaluation:
    """All candidates of one estimator on all folds."""

    def __init__(self, calls: list[_FitAndScore], settings: Resolved, workers: Workers, saved: Saved) -> None:
        self._calls = calls
        self._first = first = calls[0]
        self._settings = settings
        self._workers = workers
        self._saved = saved
        self._name = type(first.estimator).__name__.lower()
        self._raises = isinstance(first.error_score, str)
        self._data = _Data(first.X, first.y)
        self._parameters: dict[int, Mapping[str, Any] | None] = {}
        self._keys = self._identified()

    def _identified(self) -> list[TaskKey]:
        """Return the key of each call; candidates and folds are numbered as they come."""
        keys: list[TaskKey] = []
        used: set[TaskKey] = set()
        folds: dict[tuple[int, int], int] = {}
        candidates: dict[int, int] = {}
        for call in self._calls:
            fold = folds.setdefault((id(call.train), id(call.test)), len(folds))
            if fold == len(self._data.splits):
                self._data.splits.append((np.asarray(call.train), np.asarray(call.test)))
            given = call.parameters
            candidate = 0 if given is None else candidates.setdefault(id(given), len(candidates) + 1)
            key = TaskKey(self._name, candidate, fold)
            while key in used:  # the same once more
                candidate = max(len(candidates), *self._parameters) + 1
                key = TaskKey(self._name, candidate, fold)
            self._parameters[candidate] = given
            used.add(key)
            keys.append(key)
        return keys

    def run(self) -> list[dict[str, Any]]:
        """Return what scikit-learn's function would have returned for each call."""
        first, settings, workers = self._first, self._settings, self._workers
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
            data = FoldData(first.X, first.y, tuple(self._data.splits))
            shared = share(workers.executor, data, workers.temp_dir)
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
                    terms = Terms(first.return_estimator, False, None if self._raises else work.error_score)
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
                raise _exception_of(failure)
        return [
            self._told(call, outcomes.get(key)) for call, key in zip(self._calls, self._keys, strict=True)
        ]

    def _labels(self) -> dict[tuple[str, int], Hashable]:
        """Return what a later search would call each candidate too."""
        kind, size = type(self._first.estimator), len(self._data.splits[0][0])
        return {
            (self._name, candidate): (kind, size, repr(given))
            for candidate, given in self._parameters.items()
        }

    def _leaf(self, key: TaskKey) -> Leaf:
        return Leaf(key, self._parameters[key.candidate])

    def _check_parameters(self) -> None:
        """Let scikit-learn say which parameters do not exist, before any work starts."""
        from sklearn.base import clone

        checked: set[tuple[str, ...]] = set()
        for given in self._parameters.values():
            if given and tuple(given) not in checked:
                checked.add(tuple(given))
                clone(self._first.estimator).set_params(**clone(dict(given), safe=False))

    def _paths(self) -> dict[tuple[str, int], Path]:
        steps = Steps()
        estimator, last = self._first.estimator, None
        if hasattr(estimator, "steps") and estimator.steps:
            last = f"{estimator.steps[-1][0]}__"
        to_steps = [
            name for name in self._first.fit_params or {} if last is None or not name.startswith(last)
        ]
        if to_steps or len(self._parameters) < 2:
            return {}
        return {
            (self._name, candidate): steps.path(estimator, given)
            for candidate, given in self._parameters.items()
        }

    def _told(self, call: _FitAndScore, outcome: Outcome | None) -> dict[str, Any]:
        """Return the dictionary of one call, and say what scikit-learn would have said."""
        scores = None if outcome is None else outcome.value
        failure = _MISSING if outcome is None else outcome.failure
        told: dict[str, Any] = {"fit_error": None}
        if not isinstance(scores, FoldScores):
            assert failure is not None
            if failure.stage == "score":
                raise _exception_of(failure)
            told["fit_error"] = failure.traceback
            scores = FoldScores(self._failed(), self._failed(), 0.0, 0.0)
        elif failure is not None:
            warnings.warn(
                "Scoring failed. The score on this train-test partition for these parameters will be set to "
                f"{call.error_score}. Details: \n{failure.traceback}",
                UserWarning,
                stacklevel=2,
            )
        self._saved.n_fits += scores.n_shared
        self._saved.seconds += scores.saved_time
        told["test_scores"] = _single(scores.test, call.scorer)
        if call.return_train_score:
            told["train_scores"] = _single(scores.train or {}, call.scorer)
        if call.return_n_test_samples:
            told["n_test_samples"] = len(call.test)
        if call.return_times:
            told |= {"fit_time": scores.fit_time, "score_time": scores.score_time}
        if call.return_parameters:
            told["parameters"] = call.parameters
        if call.return_estimator and outcome is not None and outcome.payload is not None:
            told["estimator"] = loads(outcome.payload)["estimator"]
        elif call.return_estimator:
            told["estimator"] = call.estimator
        if call.verbose > 1:
            sys.stdout.write(f"{_progress(call, told)}\n")
        return told

    def _failed(self) -> dict[str, float]:
        names = _compat.scorers_of(self._first.scorer)
        return dict.fromkeys(names, self._first.error_score)


_MISSING = Failure("worker", "TimeoutError", "", "the run ended before this candidate was evaluated\n")


def _exception_of(failure: Failure) -> BaseException:
    if failure.exception is None:
        return AnyfoldError(f"{failure.type_name}: {failure.message}\n{failure.traceback}")
    error: BaseException = loads(failure.exception)
    return error


def _single(scores: Mapping[str, float], scorer: Any) -> Any:
    """Return a number where there is one metric without a name, as scikit-learn has it."""
    if not _compat.is_multimetric(scorer) and list(scores) == ["score"]:
        return scores["score"]
    return dict(scores)


def _progress(call: _FitAndScore, told: Mapping[str, Any]) -> str:
    """Return the line that scikit-learn prints for one call at this verbosity."""
    where = ""
    if call.verbose > 2 and call.split_progress is not None:
        where = f" {call.split_progress[0] + 1}/{call.split_progress[1]}"
    if call.verbose > 9 and call.candidate_progress:
        where += f"; {call.candidate_progress[0] + 1}/{call.candidate_progress[1]}"
    given = call.parameters or {}
    what = ", ".join(f"{name}={given[name]}" for name in sorted(given))
    if what:
        what += ";"
    if call.verbose > 2:
        test, train = told["test_scores"], told.get("train_scores")
        if isinstance(test, dict):
            for name in sorted(test):
                also = "" if train is None else f"train={train[name]:.3f}, "
                what += f" {name}: ({also}test={test[name]:.3f})"
        elif train is None:
            what += f", score={test:.3f}"
        else:
            what += f", score=(train={train:.3f}, test={test:.3f})"
    seconds = told.get("fit_time", 0.0) + told.get("score_time", 0.0)
    what += f" total time={_compat.short_format_time(seconds)}"
    begin = f"[CV{where}] END "
    return begin + "." * (80 - len(begin) - len(what)) + what


def _run_calls(calls: list[Call], settings: Resolved, workers: Workers) -> list[Any]:
    """Run calls of any function of scikit-learn's; the first that fails raises, as it would there."""
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
        failure = _MISSING if outcome is None else outcome.failure
        if failure is not None:
            raise _exception_of(failure)
    return [loads(payload)["value"] for key in keys if (payload := outcomes[key].payload) is not None]
