"""Category ``interrupts``: promise 8, nothing hangs, nothing is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from anyfold.testing._base import ContractBase
from anyfold.testing._case import contract_test
from anyfold.testing._driver import driver, run_driver
from anyfold.testing._limits import PATIENCE, wait_until
from anyfold.testing._processes import children_left, descendants, descriptors, is_alive
from anyfold.testing.probes import add, count_invocations, started_pids

__all__ = ["InterruptTests"]

PROMPT = 10.0
"""Seconds within which control is back after Ctrl-C; the promise says two on a machine that is not busy."""

RUN = """
import time
import anyfold
from anyfold.testing.probes import Hangs, Probe, probe_data

folds = anyfold.Folds(*probe_data(), cv=3)
executor = make_executor(2)
"""

FINISH = (
    RUN
    + """
models = {{"a": Probe({folder!r}, "a"), "b": Probe()}}
result = anyfold.run_cv(models, folds, backend=executor, progress=False)
assert not result.failures, result.failures
executor.shutdown()
forgotten = make_executor(1)
assert forgotten.submit(abs, -1).result() == 1
"""
)

HANG = (
    RUN
    + """
try:
    anyfold.run_cv({{"h": Hangs({folder!r}, "h")}}, folds, backend=executor, progress=False)
except KeyboardInterrupt as interrupt:
    assert interrupt.result.interrupted and len(interrupt.result.missing) >= 1, interrupt.result
    with open({folder!r} + "/interrupted", "w") as file:
        file.write(repr(time.time()))
    open({folder!r} + "/go", "w").close()  # where a task cannot be stopped it ends now
executor.shutdown()
"""
)


class InterruptTests(ContractBase):
    """Whether everything ends."""

    @contract_test("interrupts")
    def test_shutdown_leaves_no_process(self) -> None:
        """After ``shutdown`` no worker process is left."""
        before = {process.pid for process in descendants()}
        with self.fresh() as executor:
            for i in range(6):
                assert executor.submit(add, i).result(PATIENCE) == i
        wait_until(lambda: not children_left(before), f"the end of {children_left(before)}")

    @contract_test("interrupts")
    def test_executors_leave_no_descriptors(self) -> None:
        """Making, using and closing executors leaves no descriptor open."""

        def use() -> None:
            with self.fresh() as executor:
                assert executor.submit(add, 1).result(PATIENCE) == 1

        use()
        before = len(descriptors())
        use()
        use()
        wait_until(
            lambda: len(descriptors()) <= before,
            f"the closing of what two executors opened; open are {descriptors()}",
        )

    @contract_test("interrupts")
    def test_a_script_leaves_nothing(self) -> None:
        """A script that shuts one executor down and forgets another ends, and leaves no process or file."""
        folder = str(self.new_folder("marks"))
        run_driver(self, FINISH.format(folder=folder), PATIENCE)
        assert count_invocations(folder, "a-*") == 3

    @contract_test("interrupts")
    def test_nothing_is_left_when_the_caller_is_killed(self) -> None:
        """After SIGKILL of the caller its workers end, those that run a task included."""
        folder = str(self.new_folder("marks"))
        with driver(self, HANG.format(folder=folder)) as running:
            wait_until(lambda: count_invocations(folder, "h-hangs"), "a task that hangs")
            workers = started_pids(folder, "h-hangs.*")
            running.process.kill()
            wait_until(
                lambda: not any(is_alive(pid) for pid in workers),
                f"the end of workers {workers}, whose caller was killed",
            )
            wait_until(lambda: not _processes(running.left_over()), f"the end of {running.left_over()}")

    @contract_test("interrupts")
    def test_ctrl_c_gives_control_back(self) -> None:
        """Ctrl-C while tasks hang gives control back, with what had finished, and leaves nothing."""
        folder = self.new_folder("marks")
        with driver(self, HANG.format(folder=str(folder))) as running:
            wait_until(lambda: count_invocations(folder, "h-hangs"), "a task that hangs")
            pressed = time.time()
            os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does: to the whole group
            interrupted = folder / "interrupted"
            wait_until(lambda: _text(interrupted), "KeyboardInterrupt in the caller")
            seconds = float(interrupted.read_text()) - pressed
            assert seconds < PROMPT, f"control came back after {seconds:.1f} s"
            _, err = running.process.communicate(timeout=PATIENCE)
            assert running.process.returncode == 0, f"the script could not go on after Ctrl-C:\n{err}"
            wait_until(lambda: not running.left_over(), f"the end of {running.left_over()}")


def _processes(left: list[str]) -> list[str]:
    return [entry for entry in left if entry.startswith("process")]


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
