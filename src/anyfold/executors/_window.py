"""What executors over a cluster's scheduler share: tasks wait here, where they can be cancelled.

submit ──> waiting ──as many as may run──> handed over (start) ──> finish ──> settled in a thread of its own
"""

from __future__ import annotations

import concurrent.futures
import threading
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import Any

from anyfold._worker.call import Answer, dumps_call
from anyfold.executors._exit import at_interpreter_exit
from anyfold.executors._futures import failed_future, settle
from anyfold.executors._placed import noting_keys

__all__ = ["Task", "WindowedExecutor"]


class Task:
    """A call on its way, and the future of its answer."""

    def __init__(self, run: Any, payload: bytes, keys: list[str], options: Mapping[str, Any]) -> None:
        self.run = run
        """What runs the call on a worker."""
        self.payload = payload
        self.keys = keys
        """Shared objects that the call refers to."""
        self.options = options
        self.future: Future[Any] = Future()
        self.inner: Any = None
        """What the cluster's own library knows the task by."""
        self.stopped = False


class WindowedExecutor(Executor):
    """Hands over as many tasks as may run at once.

    Parameters
    ----------
    window : int
        How many tasks the scheduler may have.
    """

    def __init__(self, window: int) -> None:
        self.closed = False
        self._window = window
        self._broken: BaseException | None = None
        self._left = False
        self._lock = threading.Lock()
        self._pending: deque[Task] = deque()
        self._handed_over: set[Task] = set()
        self._in_callback = threading.local()
        self._settling = ThreadPoolExecutor(1, "anyfold-settling")
        _open.add(self)

    @abstractmethod
    def _start(self, task: Task) -> None:
        """Give a task to the scheduler; its answer is passed to `_finish`, from any thread."""

    @abstractmethod
    def _leave(self) -> None:
        """Let go of the cluster; called once, when nothing runs."""

    def _enqueue(
        self,
        run: Any,
        options: Mapping[str, Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> Future[Any]:
        self._check_open()
        try:
            with noting_keys() as keys:
                payload = dumps_call(fn, args, kwargs)
        except Exception as error:
            return failed_future(error)
        task = Task(run, payload, keys, options)
        with self._lock:
            self._check_open()
            self._pending.append(task)
        self._hand_over()
        return task.future

    def _check_open(self) -> None:
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._broken is not None:
            raise BrokenExecutor(f"the connection to the cluster is lost: {self._broken!r}")

    def _hand_over(self) -> None:
        while True:
            with self._lock:
                if not self._pending or len(self._handed_over) >= self._window:
                    return
                task = self._pending.popleft()
                if not task.future.set_running_or_notify_cancel():
                    continue
                self._handed_over.add(task)
            self._start(task)

    def _finish(self, task: Task, answer: Answer) -> None:
        """Take the answer of a task."""
        if answer.exception is not None and answer.exception.__cause__ is not None:
            answer.exception.__cause__.__traceback__ = None  # its frames would keep what the task has used
        task.inner = None
        self._settling.submit(self._settle, task, answer)

    def _settle(self, task: Task, answer: Answer) -> None:
        self._in_callback.active = True
        try:
            with self._lock:
                self._handed_over.discard(task)
            self._hand_over()
            settle(task.future, answer)
        finally:
            self._in_callback.active = False

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Refuse further tasks and leave the cluster when those given are done.

        Only a cluster that anyfold has started ends. From a future's callback this does not wait.
        """
        with self._lock:
            self.closed = True
            tasks = [*self._handed_over, *self._pending]
        if cancel_futures:
            for task in tasks:
                task.future.cancel()
            self._drop_cancelled()
        if getattr(self._in_callback, "active", False) or not wait:
            threading.Thread(target=self._end, args=(tasks,), name="anyfold-shutdown").start()
        else:
            self._end(tasks)

    def _drop_cancelled(self) -> None:
        with self._lock:
            cancelled = [task for task in self._pending if task.future.cancelled()]
            self._pending = deque(task for task in self._pending if not task.future.cancelled())
        for task in cancelled:
            task.future.set_running_or_notify_cancel()

    def _end(self, tasks: list[Task]) -> None:
        concurrent.futures.wait([task.future for task in tasks])
        with _ending:
            if not self._left:
                self._left = True
                self._settling.shutdown()
                self._leave()
                _open.discard(self)


_ending = threading.RLock()
_open: weakref.WeakSet[WindowedExecutor] = weakref.WeakSet()


def _finish_all() -> None:
    for executor in list(_open):
        executor.shutdown()


at_interpreter_exit(_finish_all)
