"""Category ``lost_workers``: promise 6, a worker that dies costs no finished result and no other task."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
from concurrent.futures import BrokenExecutor
from typing import Any

from anyfold.errors import WorkerLostError
from anyfold.events import TaskFinished
from anyfold.testing import _limits
from anyfold.testing._base import ContractBase
from anyfold.testing._case import contract_test
from anyfold.testing._limits import PATIENCE, wait_until, wait_until_gone
from anyfold.testing._processes import children_left, descendants
from anyfold.testing.probes import (
    Dies,
    Probe,
    add,
    count_invocations,
    end_worker,
    hold,
    probe_data,
    started_pids,
)

__all__ = ["LostWorkerTests"]

SOON = 5.0
"""Seconds that processes have to end, before it is asked for whom they are there."""
FATAL = ("SIGKILL", "SIGSEGV", "os._exit")


def _folds() -> Any:
    from sklearn.model_selection import KFold

    from anyfold import Folds

    return Folds(*probe_data(), cv=KFold(3))


class _DiesBehind(Dies):
    """Ends its worker when the caller has the outcome of another task."""

    def _act(self, held_out: int, earlier: int) -> None:
        assert self.folder is not None
        hold(self.folder, f"{self.name}-waits", "known")
        super()._act(held_out, earlier)


class LostWorkerTests(ContractBase):
    """Whether anything but the guilty task is lost with a worker."""

    @contract_test("lost_workers")
    def test_a_lost_worker_is_an_error_of_its_task(self) -> None:
        """The future of a task whose worker dies raises `WorkerLostError`, and the next task runs."""
        if self._cannot_lose_workers():
            return
        heals = "healing" in self.capabilities
        with self.executor() if heals else self.fresh() as executor:
            assert executor.submit(add, 1).result(PATIENCE) == 1, "the first task has no result"
            error = _result_of(executor.submit(end_worker, "SIGKILL"), "SIGKILL")
            if not heals:
                assert isinstance(error, BrokenExecutor), f"the future has {error!r}"
                return
            assert isinstance(error, WorkerLostError), f"the future has {error!r}"
            assert executor.submit(add, 1).result(PATIENCE) == 1, "unusable after a loss"

    @contract_test("lost_workers")
    def test_a_task_whose_worker_died_is_run_again(self) -> None:
        """However a worker dies: its task is run once more, all others exactly once, and all have results."""
        if self._cannot_heal():
            return
        executor, exact = self.one_process()
        for how in FATAL:
            folder = str(self.new_folder(how))
            models = {
                "before": Probe(folder, "before"),
                "dies": Dies(folder, "dies", how=how, on=(20,)),
                "after": Probe(folder, "after"),
            }
            result = self.run_cv(models, _folds(), executor, retries=1)
            assert not result.failures, f"{how}: {result.failures[0]!r}"
            counts = {n: [count_invocations(folder, f"{n}-{i}") for i in (0, 20, 40)] for n in models}
            assert counts == {"before": [1] * 3, "dies": [1, 2, 1], "after": [1] * 3} or not exact, (
                f"{how}: fits were started this often: {counts}"
            )
            assert counts["dies"][1] >= 2, f"{how}: the task that died was not run again"

    @contract_test("lost_workers")
    def test_only_the_guilty_task_fails(self) -> None:
        """A task that always kills its worker fails after its retries, named; nothing else is lost."""
        if self._cannot_heal():
            return
        executor, exact = self.one_process()
        folder = str(self.folder)
        models = {"dies": Dies(folder, "dies", on=(20,), deaths=99), "good": Probe(folder, "good")}
        result = self.run_cv(models, _folds(), executor, retries=2)
        assert [(f.model, f.fold) for f in result.failures] == [("dies", 1)], result.failures
        failure = result.failures[0]
        assert (failure.stage, failure.type) == ("worker", "WorkerLostError"), failure
        assert "model 'dies', fold 1" in failure.message, (
            f"the error does not name the task: {failure.message}"
        )
        counts = [count_invocations(folder, f"dies-{i}") for i in (0, 20, 40)]
        assert counts == [1, 3, 1] or (counts[1] >= 3 and not exact), (
            f"with two retries the tasks were started {counts} times"
        )
        assert result["good"]["test_score"].tolist() == [1.0] * 3

    @contract_test("lost_workers")
    def test_deaths_among_many_workers_lose_nothing(self) -> None:
        """Several tasks that kill their workers, among many on two workers, cost no result."""
        if self._cannot_heal():
            return
        folder = str(self.folder)
        models: dict[str, Any] = {f"good {i}": Probe(folder, f"good {i}") for i in range(12)}
        models["dies"] = Dies(folder, "dies", on=(0, 40))
        models["more"] = Dies(folder, "more", on=(20,), how="os._exit")
        with self.executor() as executor:
            result = self.run_cv(models, _folds(), executor, retries=3)
        assert not result.failures, result.failures[0]
        assert len(result.to_frame()) == 42
        started = [count_invocations(folder, f"dies-{i}") for i in (0, 40)]
        assert min(started) >= 2, f"tasks that died once were started {started} times"

    @contract_test("lost_workers")
    def test_an_idle_worker_that_dies_costs_nothing(self) -> None:
        """A worker that is killed between two runs is replaced, and the next run has all its results."""
        if self._cannot_heal():
            return
        with self.executor() as executor:
            pid = executor.submit(os.getpid).result(PATIENCE)
            os.kill(pid, signal.SIGKILL)
            result = self.run_cv({"good": Probe(), "more": Probe()}, _folds(), executor)
        assert not result.failures, result.failures[0]

    @contract_test("lost_workers")
    def test_exits_and_memory_limits_are_errors_of_the_model(self) -> None:
        """``sys.exit`` and `MemoryError` in a model end no worker: they are failures and not retried."""
        folder = str(self.folder)
        how = ("sys.exit", "memory") if self.isolation == "process" else ("sys.exit",)
        for number, ending in enumerate(how):
            name = f"dies{number}"
            models = {name: Dies(folder, name, how=ending, on=(20,), deaths=99), "good": Probe()}
            result = self.run_cv(models, _folds(), retries=2)
            expected = {"sys.exit": "SystemExit", "memory": "MemoryError"}[ending]
            types = [f.type.lstrip("_") for f in result.failures]
            assert len(types) == 1 and (types[0] == expected or "Memory" in types[0]), (
                f"{ending}: failures are {result.failures}"
            )
            started = count_invocations(folder, f"{name}-20")
            assert started == 1, f"{ending}: the model was started {started} times"

    @contract_test("lost_workers")
    def test_no_process_is_left_after_a_loss(self) -> None:
        """After a lost worker ``shutdown`` leaves no process, those that ran beside it included."""
        if self._cannot_lose_workers():
            return
        before = {process.pid for process in descendants()}
        with self.fresh() as executor:
            held = executor.submit(hold, str(self.folder))
            wait_until(lambda: started_pids(self.folder), "the task beside it")
            _result_of(executor.submit(end_worker, "SIGKILL"), "SIGKILL")
            (self.folder / "go").touch()
            concurrent.futures.wait([held], PATIENCE)
            assert held.done(), "a task beside a lost worker never ends"
        with contextlib.suppress(AssertionError):
            wait_until(lambda: not children_left(before), "its processes to end", SOON)
        if children_left(before):
            # A worker that has taken the place of the lost one is there for all that use the same engine.
            self.close_shared()
        wait_until_gone(lambda: children_left(before), "an executor that lost a worker")

    @contract_test("lost_workers")
    def test_an_executor_that_does_not_heal_gives_what_had_finished(self) -> None:
        """Without healing a lost worker ends the run with a partial result that says why."""
        if self._cannot_lose_workers():
            return
        if "healing" in self.capabilities:
            return  # what it does instead is checked above
        known = []

        def note(event: Any) -> None:
            if isinstance(event, TaskFinished) and event.outcome.key.model == "good":
                known.append(event.outcome.key.fold)
                (self.folder / "known").touch()

        with self.fresh() as executor:
            models = {"good": Probe(), "dies": _DiesBehind(str(self.folder), on=(40,), deaths=99)}
            result = self.run_cv(models, _folds(), executor, callbacks=[note])
        assert known, "no outcome has come"
        assert all(result["good"]["test_score"][fold] == 1.0 for fold in known), "what had finished was lost"
        assert any("does not heal" in failure.message for failure in result.failures), result.failures

    def _cannot_lose_workers(self) -> bool:
        if self.isolation == "process":
            return False
        self.note("surviving the death of a worker: tasks share the caller's process")
        assert "healing" not in self.capabilities, "healing is declared, but tasks share the caller's process"
        with self.executor() as executor:
            assert executor.submit(os.getpid).result(PATIENCE) == os.getpid()
        return True

    def _cannot_heal(self) -> bool:
        return self._cannot_lose_workers() or self.lacks("healing", "replacing a lost worker")


def _result_of(future: Any, how: str) -> BaseException | None:
    concurrent.futures.wait([future], _limits.FAREWELL)
    assert future.done(), f"the future of a task whose worker ended ({how}) is never done"
    error: BaseException | None = future.exception()
    return error
