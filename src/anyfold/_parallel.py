"""Stands in for joblib where scikit-learn's searches and validations hand out their work.

    scikit-learn:  Parallel(n_jobs)(delayed(_fit_and_score)(clone(estimator), X, y, train=…, …) for …)
                       │ this one
                       ▼
    one plan: candidates and folds ──> the engine, on any backend ──> the dictionaries that it waits for

Everything before and after is scikit-learn's own code. Calls of other functions are run as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sklearn.base import clone

from anyfold import _compat
from anyfold._data.serialize import loads
from anyfold._engine.sharing import Direct, share
from anyfold._evaluation import Drawn, Evaluation, Publish, Saved
from anyfold._plan.seeds import root_seed
from anyfold._plan.task import Leaf, Outcome, TaskKey
from anyfold._reply import MISSING, exception_of
from anyfold._running import Prepared, run_work
from anyfold._session import Workers, open_workers, refuse_journal
from anyfold._worker.calls import Call, Calls
from anyfold._worker.cross_validate import FoldData
from anyfold._worker.execute import inherited_seed
from anyfold.executors.base import Shared, isolation_of
from anyfold.settings import Resolved, resolve

__all__ = ["Parallel", "clone_unless_drawn", "evaluated_with"]


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


_drawing: ContextVar[bool] = ContextVar("anyfold_drawing", default=False)


def clone_unless_drawn(estimator: Any, *, safe: bool = True) -> Any:
    """Clone an estimator, but not for a call that is being drawn: the worker makes a clone of its own."""
    return estimator if _drawing.get() and safe else clone(estimator, safe=safe)


def _drawn_from(calls: Iterable[Any]) -> Iterator[Drawn]:
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
        self._published: list[tuple[Any, Any, Workers, Shared[FoldData]]] = []

    def __enter__(self) -> Parallel:
        self._stack = ExitStack()
        self._workers = self._stack.enter_context(open_workers(self._settings, may_move=True))
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._stack is not None
        self._stack.callback(self._published.clear)
        for *_, shared in self._published:
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

    def _publish(self, X: Any, y: Any, workers: Workers) -> Shared[FoldData]:
        """Publish data for as long as the workers are kept, so that the next round finds it there."""
        for known_X, known_y, known_workers, shared in self._published:
            if known_X is X and known_y is y and known_workers.executor is workers.executor:
                return shared
        shared = share(workers.executor, FoldData(X, y, ()), workers.temp_dir)
        self._published.append((X, y, workers, shared))
        return shared


def _evaluation_of(
    drawn: Drawn, settings: Resolved, workers: Workers, saved: Saved, publish: Publish
) -> Evaluation | None:
    """Return the evaluation that begins with a call; None where it does something else than fit and score."""
    function, args, kwargs = drawn
    if not _compat.is_fit_and_score(function):
        return None
    evaluation = Evaluation(function, args, kwargs, settings, workers, saved, publish)
    call = evaluation.first
    if getattr(call.arguments.get("caller"), "_skl_callbacks", None) or _has_callbacks(call.estimator):
        return None
    return evaluation


def _with_own_estimator(drawn: Drawn) -> Call:
    """Return a call as it is; one that fits and scores gets the clone that was not made for it."""
    function, args, kwargs = drawn
    if _compat.is_fit_and_score(function):
        args = (clone(args[0]), *args[1:])
    return Call(function, args, kwargs)


def _has_callbacks(estimator: Any) -> bool:
    parts = [estimator, *estimator.get_params(deep=True).values()]
    return any(getattr(part, "_skl_callbacks", None) for part in parts)


def _run_calls(calls: list[Call], settings: Resolved, workers: Workers) -> list[Any]:
    """Run calls of any function of scikit-learn's; the first that fails raises, as it would there."""
    refuse_journal(settings, f"a journal keeps scores, no results of {calls[0].name}; leave it out")
    given = settings.random_state if settings.random_state is not None else inherited_seed()
    keys = [TaskKey(calls[0].name, 0, position) for position in range(len(calls))]
    outcomes: dict[TaskKey, Outcome] = {}
    common, own = Calls.taken_apart(calls)
    in_process = isolation_of(workers.executor) != "process"
    shared = Direct(common) if in_process else share(workers.executor, common, workers.temp_dir)
    root = root_seed(given)
    try:
        run_work(
            lambda _: Prepared(
                Calls(shared),
                (Leaf(key, {"call": call}) for key, call in zip(keys, own, strict=True)),
                len(keys),
            ),
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
