"""Category ``protocol``: what an executor declares that it can do, it does; the rest it refuses."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import threading
from concurrent.futures import Future
from typing import Any

from anyfold.executors.base import CAPABILITIES, capabilities_of, isolation_of
from anyfold.testing import _limits
from anyfold.testing._base import ContractBase, hold_all
from anyfold.testing._case import contract_test
from anyfold.testing._limits import PATIENCE, wait_until
from anyfold.testing.probes import add, count_invocations, hold, started_pids

__all__ = ["CapabilityTests"]

METHODS = {
    "share": ("share", "submit_shared"),
    "stop_running": ("stop_running",),
    "mailbox": ("open_mailbox",),
    "resources": ("submit_with_resources",),
}
"""The methods that a declared capability must come with."""


class CapabilityTests(ContractBase):
    """Whether declarations are true."""

    @contract_test("protocol")
    def test_declarations_are_true(self) -> None:
        """What the executor declares is known, and the methods that belong to it are there."""
        with self.executor() as executor:
            isolation, declared = isolation_of(executor), capabilities_of(executor)
            assert isolation in ("process", "thread", "none"), f"isolation is {isolation!r}"
            unknown = declared - set(CAPABILITIES)
            assert not unknown, f"unknown capabilities {sorted(unknown)}; known are {sorted(CAPABILITIES)}"
            for capability, methods in METHODS.items():
                missing = [m for m in methods if not callable(getattr(executor, m, None))]
                assert capability not in declared or not missing, (
                    f"{capability!r} is declared without {missing}"
                )
            workers = getattr(executor, "max_workers", None)
            assert workers is None or (isinstance(workers, int) and workers >= 1), f"max_workers={workers!r}"

    @contract_test("protocol")
    def test_tasks_run_where_the_executor_says(self) -> None:
        """``isolation`` is where tasks run: in other processes, in other threads, or in the caller."""
        with self.executor() as executor:
            pid = executor.submit(os.getpid).result(PATIENCE)
            elsewhere = pid != os.getpid()
            assert elsewhere == (isolation_of(executor) == "process"), (
                f"isolation is {isolation_of(executor)!r}, the task ran in {pid}, this is {os.getpid()}"
            )
            if not elsewhere:
                thread = executor.submit(threading.get_ident).result(PATIENCE)
                same = thread == threading.get_ident()
                assert same == (isolation_of(executor) == "none"), (
                    f"isolation is {isolation_of(executor)!r}, but the task ran in "
                    f"{'the same' if same else 'another'} thread"
                )

    @contract_test("protocol")
    def test_running_work_can_be_stopped(self) -> None:
        """``stop_running`` ends running tasks at once, and the executor can be used again."""
        if self.lacks("stop_running", "stopping work that runs"):
            return
        with self.executor() as executor:
            held = hold_all(executor, self.folder)
            pids = started_pids(self.folder)
            executor.stop_running()
            for future in held:
                concurrent.futures.wait([future], _limits.FAREWELL)
                assert future.done(), "a task still runs after stop_running()"
                assert future.cancelled() or future.exception() is not None, "a stopped task has a result"
            assert executor.submit(add, 1).result(PATIENCE) == 1, "unusable after stop_running()"
            again = executor.submit(os.getpid).result(PATIENCE)
            assert again not in pids, "a worker that was stopped runs tasks again"

    @contract_test("protocol")
    def test_two_executors_do_not_disturb_each_other(self) -> None:
        """Stopping and closing one executor leaves another one as it is."""
        with self.executor() as other:
            at_work = isolation_of(other) != "none"
            kept = self._held(other, "kept") if at_work else other.submit(add, 1)
            with self.fresh() as executor:
                if at_work:
                    self._held(executor, "stopped")
                if "stop_running" in capabilities_of(executor):
                    executor.stop_running()
                (self.folder / "go").touch()
            assert kept.exception(PATIENCE) is None, "stopping another one has ended a task of this"
            assert other.submit(add, 2).result(PATIENCE) == 2, "unusable after another one was closed"

    def _held(self, executor: Any, name: str) -> Future[Any]:
        """Start a task that runs until the file ``go`` appears."""
        future: Future[Any] = executor.submit(hold, str(self.folder), name)
        wait_until(lambda: count_invocations(self.folder, name) == 1, "a task to start")
        return future

    @contract_test("protocol")
    def test_resources_are_respected_or_refused(self) -> None:
        """Tasks are placed by the resources that they ask for, where the executor has them to give."""
        if self.lacks("resources", "placing tasks by resources"):
            return
        with self.executor() as executor:
            assert executor.submit_with_resources({"cpu": 1}, add, 1, b=2).result(PATIENCE) == 3

    @contract_test("protocol")
    def test_a_mailbox_opens_and_closes(self) -> None:
        """An executor with a channel of its own opens it for a run and closes it afterwards."""
        if self.lacks("mailbox", "a channel of its own for what workers report"):
            return
        with self.executor() as executor:
            mailbox = executor.open_mailbox(lambda report: None)
            try:
                assert pickle.loads(pickle.dumps(mailbox.address)) is not None
                mailbox.drain()
            finally:
                mailbox.close()
