"""What the tests of the contract stand on: executors under test, folders, runs, notes."""

from __future__ import annotations

import abc
import contextlib
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

from anyfold.errors import UnsupportedFeatureError
from anyfold.executors.base import Capability, Isolation, capabilities_of, isolation_of, require_capability
from anyfold.testing._limits import wait_until
from anyfold.testing._processes import children_left, descendants
from anyfold.testing.probes import count_invocations, hold

__all__ = ["MAX_WORKERS", "ROOT", "ContractBase", "hold_all", "oracle"]

MAX_WORKERS = 2
"""How many workers most tests use."""

ROOT = 7
"""Root of the seeds of all runs whose numbers are compared."""


class _Opened:
    """An executor of the factory's, and as the engine uses it."""

    def __init__(self, made: Any) -> None:
        from anyfold.executors.adapter import as_executor

        self.made = made
        self.executor: Any = as_executor(made)

    def close(self) -> None:
        self.executor.shutdown()
        if self.made is not self.executor:
            self.made.shutdown()

    def abandon(self) -> None:
        """Let go of an executor that may hang, without hanging."""
        threading.Thread(target=self._abandon, daemon=True, name="anyfold-abandon").start()

    def _abandon(self) -> None:
        for executor in (self.executor, self.made):
            with contextlib.suppress(Exception):
                if "stop_running" in capabilities_of(executor):
                    executor.stop_running()
                executor.shutdown(wait=False, cancel_futures=True)


class ContractBase(abc.ABC):
    """Base of the classes that hold the tests of one category each."""

    expected_failures: ClassVar[Mapping[str, str]] = {}
    time_limit: ClassVar[float] = 100.0
    notes: list[str]

    _shared: ClassVar[dict[type, dict[int, _Opened]]] = {}
    _folder: tempfile.TemporaryDirectory[str] | None = None
    _before: frozenset[int] = frozenset()

    @abc.abstractmethod
    def make_executor(self, max_workers: int, **options: Any) -> Any:
        """Return a new executor with that many workers; the tests shut it down.

        Parameters
        ----------
        max_workers : int
            How many tasks may run at once.
        **options : object
            None at present; what later versions may ask for.
        """

    # ---- executors ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def fresh(self, max_workers: int = MAX_WORKERS) -> Iterator[Any]:
        """Make an executor for this test alone and shut it down afterwards."""
        opened = _Opened(self.make_executor(max_workers))
        try:
            yield opened.executor
        except BaseException:
            opened.abandon()
            raise
        opened.close()

    @contextlib.contextmanager
    def executor(self, max_workers: int = MAX_WORKERS) -> Iterator[Any]:
        """Use an executor that the tests of this class share, as long as none of them has failed."""
        yield self._shared_executor(max_workers)

    def one_process(self) -> tuple[Any, bool]:
        """Return an executor with one worker process, or with two where a single worker is the caller itself.

        Returns
        -------
        executor : Executor
            Shared with other tests.
        exact : bool
            Whether it has one worker, so that nothing runs beside a task that dies.
        """
        executor = self._shared_executor(1)
        if isolation_of(executor) == "process":
            return executor, True
        self.note("one worker in a process of its own: a single worker is the caller itself")
        return self._shared_executor(), False

    def _shared_executor(self, max_workers: int = MAX_WORKERS) -> Any:
        opened = self._shared.setdefault(type(self), {})
        if max_workers not in opened:
            opened[max_workers] = _Opened(self.make_executor(max_workers))
        return opened[max_workers].executor

    @property
    def isolation(self) -> Isolation:
        """Where the executor says that it runs its tasks."""
        return isolation_of(self._shared_executor())

    @property
    def capabilities(self) -> frozenset[str]:
        """What the executor says that it can do."""
        return capabilities_of(self._shared_executor())

    def lacks(self, capability: Capability, needed_for: str) -> bool:
        """Return whether a capability is missing; if so, see that asking for it is refused, and note it."""
        with self.executor() as executor:
            if capability in capabilities_of(executor):
                return False
            try:
                require_capability(executor, capability, needed_for)
            except UnsupportedFeatureError:
                self.note(f"{needed_for}: it does not declare {capability!r}")
                return True
        raise AssertionError(f"{capability!r} is not declared, and asking for it was not refused")

    def note(self, sentence: str) -> None:
        """Note ``"what the backend cannot do: why"``; the command and the table of promises show it."""
        self.notes.append(sentence)

    # ---- runs ---------------------------------------------------------------------------------

    def run_cv(self, models: Any, folds: Any, executor: Any = None, **arguments: Any) -> Any:
        """Run models on folds on the executor under test; warnings are on the result and shown to nobody."""
        if executor is None:
            executor = self._shared_executor()
        return quiet_run(models, folds, executor, **arguments)

    # ---- surroundings -------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """A temporary folder of this test."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="contract-", ignore_cleanup_errors=True)
        return Path(self._folder.name)

    def new_folder(self, name: str) -> Path:
        """Return a new folder inside the one of this test."""
        path = self.folder / name
        path.mkdir()
        return path

    def setup_method(self) -> None:
        """Prepare one test."""
        self.notes = []
        self._before = frozenset(process.pid for process in descendants())

    def teardown_method(self) -> None:
        """Clean up after one test; probes that still wait end when their folder is gone."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def after_failure(self) -> None:
        """Trust no executor of a test that failed: later tests get new ones, and nothing of it stays."""
        self.teardown_method()
        for opened in self._shared.pop(type(self), {}).values():
            opened.abandon()
        for process in children_left(set(self._before)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)

    @classmethod
    def teardown_class(cls) -> None:
        """Shut down the executors that the tests of this class shared."""
        cls.close_shared()

    @classmethod
    def close_shared(cls) -> None:
        """Shut down the executors that the tests of this class share; later ones get new ones."""
        for opened in cls._shared.pop(cls, {}).values():
            opened.close()


def quiet_run(models: Any, folds: Any, executor: Any, **arguments: Any) -> Any:
    """Run models on folds; warnings are on the result and shown to nobody."""
    from anyfold import run_cv

    arguments = {"random_state": ROOT, "progress": False, **arguments}
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        return run_cv(models, folds, backend=executor, **arguments)


def oracle(models: Any, folds: Any, **arguments: Any) -> Any:
    """Return what anyfold's own serial executor makes of a run, which is by definition right."""
    from anyfold.executors.serial import SerialExecutor

    with SerialExecutor() as executor:
        return quiet_run(models, folds, executor, **arguments)


def hold_all(executor: Any, folder: Path) -> list[Future[Any]]:
    """Keep all workers busy until the file ``go`` appears in a folder; return when they are."""
    held = [executor.submit(hold, str(folder), "held") for _ in range(MAX_WORKERS)]
    wait_until(lambda: count_invocations(folder, "held") == MAX_WORKERS, f"{MAX_WORKERS} tasks to start")
    return held
