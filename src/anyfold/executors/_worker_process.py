"""One worker process of anyfold's own pool, as the caller sees it: its pipe, its task, its end.

The caller's end of the pipe never blocks, so that neither a huge task nor a stopped worker can hold up
the others. `begin` and `flush` need the pool's lock; `receive` and `reap` belong to the manager thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import weakref
from concurrent.futures import Future
from multiprocessing.context import BaseContext
from typing import Any

from anyfold._worker.boot import WorkerSetup
from anyfold._worker.serve import CHUNK, HEADER, serve
from anyfold.executors._start import starting

__all__ = ["Task", "WorkerProcess"]


class Task:
    """A pickled call and the future of its answer."""

    __slots__ = ("claimed", "future", "payload")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.future: Future[Any] = Future()
        self.claimed = False

    def claim(self) -> bool:
        """Say that the call runs from now on; False where it was cancelled before."""
        if not self.claimed:
            try:
                self.claimed = self.future.set_running_or_notify_cancel()
            except RuntimeError:
                return False  # somebody resolved the future by hand
        return self.claimed


class WorkerProcess:
    """A worker process; see the module's docstring for who may call what."""

    def __init__(self, context: BaseContext, setup: WorkerSetup) -> None:
        with starting():
            self.channel, worker_end = socket.socketpair()
            _channels.add(self.channel)
            try:
                self.channel.setblocking(False)
                process: Any = context.Process(  # type: ignore[attr-defined]
                    target=serve, args=(worker_end, setup), name="anyfold-worker", daemon=False
                )
                process.start()
            except BaseException:
                self.channel.close()
                raise
            finally:
                worker_end.close()
        self.process = process
        self.pid: int = process.pid
        self.exit_descriptor, self._owned = _exit_descriptor(process, context.get_start_method())
        self.task: Task | None = None
        self.ready = False
        self.doomed = False
        """No task may be given to it any more."""
        self.expected = False
        """Its end is wanted by the pool, and no sign that something is wrong."""
        self.hung_up = False
        """Nothing more comes from its end of the pipe."""
        self.stopped = False
        """It was killed on the user's request."""
        self.answers = 0
        self.boot_error = ""
        self._outgoing: list[memoryview] = []
        self._header = bytearray()
        self._body: bytearray | None = None
        self._filled = 0

    @property
    def unsent(self) -> bool:
        """Whether part of the task still waits for room in the pipe."""
        return bool(self._outgoing)

    def begin(self, task: Task) -> bool:
        """Give the worker a task; False where it is gone already and has seen nothing of it."""
        self.task = task
        self._outgoing = [memoryview(HEADER.pack(len(task.payload))), memoryview(task.payload)]
        if self.flush():
            return True
        self.task, self._outgoing, self.doomed = None, [], True
        return False

    def flush(self) -> bool:
        """Send what the pipe takes now; False where not a byte can go because the worker is gone."""
        begun = False
        while self._outgoing:
            try:
                sent = self.channel.sendmsg(self._outgoing, (), socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return True
            except OSError:
                self._outgoing = []  # its end will be noticed where all ends are
                return begun
            begun = True
            while self._outgoing and sent >= len(self._outgoing[0]):
                sent -= len(self._outgoing.pop(0))
            if sent:
                self._outgoing[0] = self._outgoing[0][sent:]
        if self.task is not None:
            self.task.payload = b""  # it is never sent again, and may be large
        return True

    def receive(self, turns: int = 64) -> tuple[list[bytes | bytearray], bool]:
        """Return the frames that are complete now, and whether the worker may still send more."""
        frames: list[bytes | bytearray] = []
        for _ in range(turns):  # then it is another worker's turn
            try:
                if self._body is None:
                    data = self.channel.recv(CHUNK)
                    if not data:
                        return frames, False
                    self._take(data, frames)
                else:
                    with memoryview(self._body) as view:
                        received = self.channel.recv_into(view[self._filled :])
                    if not received:
                        return frames, False
                    self._filled += received
                    self._finish(frames)
            except BlockingIOError:
                return frames, True
            except OSError:
                return frames, False
        return frames, True

    def _take(self, data: bytes, frames: list[bytes | bytearray]) -> None:
        # A worker sends one answer per task, so data never runs over into a further frame; only the
        # first frame of all, its readiness, may have company, and it is sent before any task.
        self._header += data
        if len(self._header) < HEADER.size:
            return
        (size,) = HEADER.unpack_from(self._header)
        self._filled = len(self._header) - HEADER.size
        self._body = bytearray(size)
        self._body[: self._filled] = self._header[HEADER.size :]
        self._header.clear()
        self._finish(frames)

    def _finish(self, frames: list[bytes | bytearray]) -> None:
        if self._body is not None and self._filled == len(self._body):
            frames.append(self._body)
            self._body = None

    def let_go(self) -> None:
        """Ask the worker to end when it has nothing to do."""
        self.doomed = self.expected = True
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """End the worker now, whatever it does."""
        self.doomed = self.expected = True
        if self._owned:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._owned[0], signal.SIGKILL)
        else:
            self.process.kill()

    def reap(self) -> int | None:
        """Free what belongs to a worker that has ended and return its exit status, if it is known."""
        with starting():
            self.process.join()
            exitcode: int | None = self.process.exitcode
            with contextlib.suppress(ValueError):
                self.process.close()
        self.channel.close()
        for descriptor in self._owned:
            os.close(descriptor)
        self._owned = ()
        return exitcode


def _exit_descriptor(process: Any, method: str) -> tuple[int, tuple[int, ...]]:
    """Return what becomes readable when the process has ended, and the descriptors that we own."""
    if not hasattr(os, "pidfd_open"):
        return process.sentinel, ()
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return process.sentinel, ()
    # The sentinel of a direct child is a pipe that its own children keep open; a fork server reports the
    # exit status through its sentinel, later than the process ends.
    return (process.sentinel if method == "forkserver" else pidfd), (pidfd,)


_channels: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_in_child() -> None:
    # A child that kept these open would hide the caller's end from workers waiting for it.
    for channel in list(_channels):
        channel.close()


os.register_at_fork(after_in_child=_close_in_child)
