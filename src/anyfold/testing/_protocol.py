"""Category ``protocol``: PEP 3148, as an executor is used by the engine and by anybody else."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import traceback
from concurrent.futures import CancelledError, Future
from typing import Any

from anyfold.executors.base import isolation_of
from anyfold.testing._base import ContractBase, hold_all
from anyfold.testing._case import contract_test
from anyfold.testing._limits import PATIENCE, wait_until
from anyfold.testing.probes import (
    ProbeError,
    add,
    count_invocations,
    note_invocation,
    raise_error,
)

__all__ = ["ProtocolTests"]

_NOT_SIDE_BY_SIDE = 5.0
"""Seconds after which the second of two tasks is taken to wait for the end of the first."""


def _zero_when_told(folder: str) -> int:
    """Return 0, but only once the caller has the result of another task, or will not have it."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: count_invocations(folder, "told"), "the other task", _NOT_SIDE_BY_SIDE)
    return 0


class ProtocolTests(ContractBase):
    """Whether the executor is one."""

    @contract_test("protocol")
    def test_arguments_arrive(self) -> None:
        """Positional and keyword arguments arrive, whatever the names of the latter."""
        with self.executor() as executor:
            assert executor.submit(add, 1, 2).result(PATIENCE) == 3
            assert executor.submit(add, 1, b=3).result(PATIENCE) == 4
            names = {"fn": 1, "self": 2, "args": 3, "future": 4, "executor": 5}
            assert executor.submit(dict, **names).result(PATIENCE) == names
            assert executor.submit(lambda: None).result(PATIENCE) is None

    @contract_test("protocol")
    def test_futures_are_those_of_the_standard_library(self) -> None:
        """``submit`` returns real futures: `concurrent.futures.wait` and ``as_completed`` work on them."""
        with self.executor() as executor:
            futures = [executor.submit(add, i) for i in range(5)]
            strange = [type(future) for future in futures if not isinstance(future, Future)]
            assert not strange, f"submit returned {strange[0]}, not a concurrent.futures.Future"
            assert concurrent.futures.wait(futures, PATIENCE).not_done == set()
            assert set(concurrent.futures.as_completed(futures, PATIENCE)) == set(futures)
            assert all(future.done() and not future.running() for future in futures)
            assert list(executor.map(add, range(5), range(5))) == [0, 2, 4, 6, 8]

    @contract_test("protocol")
    def test_results_belong_to_their_futures(self) -> None:
        """Each future has the result of its own task, also where later tasks end first."""
        with self.executor() as executor:
            futures = [executor.submit(add, i, 1000) for i in range(40)]
            results = [future.result(PATIENCE) for future in futures]
            assert results == [i + 1000 for i in range(40)], f"results are not in order: {results}"
            if isolation_of(executor) == "none":
                return
            pair = [executor.submit(_zero_when_told, str(self.folder)), executor.submit(add, 1)]
            concurrent.futures.wait(pair, _NOT_SIDE_BY_SIDE, concurrent.futures.FIRST_COMPLETED)
            note_invocation(self.folder, "told")
            results = [future.result(PATIENCE) for future in pair]
            assert results == [0, 1], f"two tasks that ended in reverse order have the results {results}"

    @contract_test("protocol")
    def test_each_task_runs_exactly_once(self) -> None:
        """Every task runs, and none runs twice."""
        with self.executor() as executor:
            futures = [executor.submit(note_invocation, self.folder, f"task-{i}") for i in range(60)]
            not_done = concurrent.futures.wait(futures, PATIENCE).not_done
            assert not not_done, f"{len(not_done)} of 60 futures are never done"
            counts = [count_invocations(self.folder, f"task-{i}") for i in range(60)]
            assert counts == [1] * 60, f"tasks ran this often: {counts}"

    @contract_test("protocol")
    def test_exceptions_keep_their_type_and_arguments(self) -> None:
        """What a task raises is raised by its future, with type, arguments and attributes."""
        with self.executor() as executor:
            error = executor.submit(raise_error, ProbeError("by the probe", 5)).exception(PATIENCE)
            assert type(error) is ProbeError, f"a task raised ProbeError, its future has {error!r}"
            assert (error.args, error.code) == (("by the probe", 5), 5), f"arguments were lost: {error!r}"
            assert executor.submit(add, 1).result(PATIENCE) == 1

    @contract_test("protocol")
    def test_exceptions_show_where_they_were_raised(self) -> None:
        """The traceback of the worker is shown with the exception."""
        with self.executor() as executor:
            error = executor.submit(raise_error, ProbeError("by the probe")).exception(PATIENCE)
            assert error is not None, "a task raised, its future has no exception"
            text = "".join(traceback.format_exception(error))
            assert "raise_error" in text, f"the traceback does not name the task's function:\n{text}"

    @contract_test("protocol")
    def test_exit_and_interrupt_inside_a_task_end_no_worker(self) -> None:
        """``SystemExit`` and ``KeyboardInterrupt`` raised by a task are answers like any exception."""
        with self.executor() as executor:
            for raised in (SystemExit(3), KeyboardInterrupt()):
                if isolation_of(executor) == "none":
                    try:
                        executor.submit(raise_error, raised)
                    except type(raised):
                        self.note("SystemExit and KeyboardInterrupt of a task are the caller's own")
                    continue
                error = executor.submit(raise_error, raised).exception(PATIENCE)
                assert type(error) is type(raised), f"a task raised {raised!r}, its future has {error!r}"
            assert executor.submit(add, 1).result(PATIENCE) == 1

    @contract_test("protocol")
    def test_a_waiting_task_can_be_cancelled(self) -> None:
        """A cancelled task never runs, and one that runs cannot be cancelled."""
        with self.executor() as executor:
            if isolation_of(executor) == "none":
                assert not executor.submit(add, 1).cancel(), "a task that has run was cancelled"
                self.note("cancelling: a task has run before submit returns")
                return
            held = hold_all(executor, self.folder)
            waiting = [executor.submit(note_invocation, self.folder, f"task-{i}") for i in range(20)]
            called: list[Any] = []
            waiting[-1].add_done_callback(called.append)
            assert waiting[-1].cancel(), "cancel() of a task that waits behind 20 others returned False"
            assert waiting[-1].cancelled(), "cancel() returned True, but cancelled() is False"
            assert called == [waiting[-1]], "the callback of a cancelled future was not called"
            assert not held[0].cancel(), "a task that runs was cancelled"
            (self.folder / "go").touch()
            assert not concurrent.futures.wait(waiting, PATIENCE).not_done
            counts = [count_invocations(self.folder, f"task-{i}") for i in range(20)]
            assert counts == [1] * 19 + [0], (
                f"tasks, of which the last was cancelled, ran this often: {counts}"
            )
            try:
                waiting[-1].result(0)
            except CancelledError:
                return
            raise AssertionError("result() of a cancelled future did not raise CancelledError")

    @contract_test("protocol")
    def test_callbacks_are_called_once_with_their_future(self) -> None:
        """A callback is called once with its future, also where that is done already."""
        called: list[Any] = []
        many_done = threading.Event()

        def remember(future: Future[Any]) -> None:
            called.append(future)
            if len(called) == 10:
                many_done.set()

        with self.executor() as executor:
            futures = [executor.submit(add, i) for i in range(10)]
            for future in futures:
                future.add_done_callback(remember)
            assert many_done.wait(PATIENCE), f"{len(called)} of 10 callbacks were called"
            late: list[Any] = []
            futures[0].add_done_callback(late.append)
            assert late == [futures[0]]
            assert sorted(map(id, called)) == sorted(map(id, futures)), "callbacks got other futures"

    @contract_test("protocol")
    def test_callbacks_may_submit(self) -> None:
        """A callback may submit the next task without a deadlock."""
        finished = threading.Event()
        left = [30]

        def again(future: Future[Any]) -> None:
            left[0] -= future.result()
            if left[0] == 0:
                finished.set()
            else:
                executor.submit(add, 1).add_done_callback(again)

        with self.executor() as executor:
            executor.submit(add, 1).add_done_callback(again)
            assert finished.wait(PATIENCE), f"a chain of 30 tasks stopped {left[0]} tasks before its end"

    @contract_test("protocol")
    def test_many_threads_may_submit(self) -> None:
        """Several threads may submit at once, and each gets the results of its own tasks."""
        sums: dict[int, int] = {}

        def work(number: int) -> None:
            sums[number] = sum(executor.submit(add, number, i).result(PATIENCE) for i in range(10))

        with self.executor() as executor:
            threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            assert sums == {i: 10 * i + 45 for i in range(8)}, f"eight threads got {sums}"

    @contract_test("protocol")
    def test_shutdown_waits_and_may_be_repeated(self) -> None:
        """``shutdown`` returns when all tasks are done, and a second one does no harm."""
        with self.fresh() as executor:
            futures = [executor.submit(note_invocation, self.folder, f"task-{i}") for i in range(10)]
            executor.shutdown()
            assert all(future.done() for future in futures), "shutdown() returned before the tasks were done"
            assert count_invocations(self.folder, "task-*") == 10
            executor.shutdown()
            executor.shutdown(wait=False, cancel_futures=True)

    @contract_test("protocol")
    def test_submit_after_shutdown_is_refused(self) -> None:
        """After ``shutdown``, or the end of a ``with`` block, ``submit`` raises `RuntimeError`."""
        with self.fresh() as executor:
            with executor as entered:
                assert entered.submit(add, 1).result(PATIENCE) == 1
            try:
                executor.submit(note_invocation, self.folder)
            except RuntimeError:
                assert not count_invocations(self.folder)
                return
            raise AssertionError("submit after shutdown did not raise RuntimeError")

    @contract_test("protocol")
    def test_shutdown_can_cancel_what_waits(self) -> None:
        """``shutdown(cancel_futures=True)`` cancels what has not started and waits for the rest."""
        with self.fresh() as executor:
            if isolation_of(executor) == "none":
                self.note("cancelling at shutdown: a task has run before submit returns")
                executor.shutdown(cancel_futures=True)
                return
            held = hold_all(executor, self.folder)
            waiting = [executor.submit(note_invocation, self.folder, f"task-{i}") for i in range(30)]
            executor.shutdown(wait=False, cancel_futures=True)
            (self.folder / "go").touch()
            executor.shutdown()
            assert all(future.done() for future in (*held, *waiting)), "futures are left that are never done"
            assert all(future.exception() is None for future in held), "a task that ran was cancelled"
            ran = count_invocations(self.folder, "task-*")
            cancelled = sum(future.cancelled() for future in waiting)
            assert ran + cancelled == 30, f"of 30 waiting tasks {ran} ran and {cancelled} were cancelled"
            assert cancelled, "shutdown(cancel_futures=True) cancelled nothing"
