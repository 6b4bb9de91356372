"""Category ``interrupts``: promise 8, nothing hangs, nothing is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from anyfold.testing._base import ContractBase
from anyfold.testing._case import contract_test
from anyfold.testing._driver import driver
from anyfold.testing._limits import PATIENCE, wait_until, wait_until_gone
from anyfold.testing._lives import life_of
from anyfold.testing._processes import is_alive
from anyfold.testing._scripts import ended_script
from anyfold.testing.probes import count_invocations, started_pids

__all__ = ["InterruptTests"]

PROMPT = 10.0
"""Seconds within which control is back after Ctrl-C; the promise says two on a machine that is not busy."""

HANG = """
import time
import anyfold
from anyfold.testing.probes import Hangs, probe_data

folds = anyfold.Folds(*probe_data(), cv=3)
executor = make_executor(2)
try:
    anyfold.run_cv({{"h": Hangs({folder!r}, "h")}}, folds, backend=executor, progress=False)
except KeyboardInterrupt as interrupt:
    assert interrupt.result.interrupted and len(interrupt.result.missing) >= 1, interrupt.result
    with open({folder!r} + "/interrupted", "w") as file:
        file.write(repr(time.time()))
    open({folder!r} + "/go", "w").close()  # where a task cannot be stopped it ends now
executor.shutdown()
"""


class InterruptTests(ContractBase):
    """Whether everything ends."""

    @contract_test("interrupts")
    def test_shutdown_leaves_no_process(self) -> None:
        """After ``shutdown`` no worker process is left."""
        left = life_of(self).processes
        assert not left, f"an executor has left {left}"

    @contract_test("interrupts")
    def test_executors_leave_no_descriptors(self) -> None:
        """Making, using and closing an executor leaves no descriptor open."""
        before, after = life_of(self).descriptors
        assert len(after) <= len(before), f"before an executor {before} were open, and after it {after}"

    @contract_test("interrupts")
    def test_a_script_leaves_nothing(self) -> None:
        """A script that shuts one executor down and forgets another ends, and leaves no process or file."""
        script = ended_script(self)
        assert script.status == 0, f"a script that uses the executor failed:\n{script.err}"
        assert not script.left_over, f"a script has left {script.left_over}"

    @contract_test("interrupts")
    def test_nothing_is_left_when_the_caller_is_killed(self) -> None:
        """After SIGKILL of the caller its workers end, those that run a task included."""
        folder = str(self.new_folder("marks"))
        with driver(self, HANG.format(folder=folder)) as running:
            wait_until(lambda: count_invocations(folder, "h-hangs"), "a task that hangs")
            workers = started_pids(folder, "h-hangs.*")
            running.process.kill()
            wait_until_gone(
                lambda: [pid for pid in workers if is_alive(pid)] + _processes(running.left_over()),
                "a caller that was killed",
            )

    @contract_test("interrupts")
    def test_ctrl_c_gives_control_back(self) -> None:
        """Ctrl-C while tasks hang gives control back, with what had finished, and leaves nothing."""
        folder = self.new_folder("marks")
        with driver(self, HANG.format(folder=str(folder))) as running:
            wait_until(lambda: count_invocations(folder, "h-hangs"), "a task that hangs")
            pressed = time.time()
            os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does: to the whole group
            interrupted = folder / "interrupted"
            wait_until(lambda: _text(interrupted), "KeyboardInterrupt in the caller", PROMPT)
            seconds = float(interrupted.read_text()) - pressed
            assert seconds < PROMPT, f"control came back after {seconds:.1f} s"
            _, err = running.process.communicate(timeout=PATIENCE)
            assert running.process.returncode == 0, f"the script could not go on after Ctrl-C:\n{err}"
            wait_until_gone(running.left_over, "a script that was interrupted")


def _processes(left: list[str]) -> list[str]:
    return [entry for entry in left if entry.startswith("process")]


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""
