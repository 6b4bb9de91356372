"""Starting worker processes: the standard start methods, without running the caller's main module again.

`multiprocessing` makes a new interpreter import the caller's ``__main__``, which runs a script without a
main guard a second time, and its workers a third. anyfold pickles by value what ``__main__`` defines, so
its contexts leave that out. They also keep a fork server of their own: the one of `multiprocessing`, with
its list of modules to preload, belongs to the user.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import queue
import select
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing import (
    context,
    forkserver,
    popen_fork,
    popen_forkserver,
    popen_spawn_posix,
    process,
    reduction,
    resource_tracker,
    spawn,
    util,
)
from typing import Any

from anyfold._worker.boot import environment
from anyfold.errors import InvalidSettingError

__all__ = [
    "START_METHODS",
    "default_start_method",
    "interrupts_blocked",
    "standard_descriptors",
    "start_context",
    "starting",
    "stop_fork_server",
]

START_METHODS = ("forkserver", "spawn", "fork")

_LAST_BREATH = 5.0
"""Seconds that a fork server that was killed has to end."""
_PRELOAD = ["anyfold._worker.preload", "anyfold._worker.preload_imports"]


def default_start_method() -> str:
    """Return the start method that is quick and safe in a process with threads."""
    return "forkserver" if sys.platform == "linux" else "spawn"


def start_context(method: str | None) -> context.BaseContext:
    """Return the context of a start method, ``None`` being the default one.

    Raises
    ------
    InvalidSettingError
        There is no such start method.
    """
    method = default_start_method() if method is None else method
    if method not in _CONTEXTS:
        raise InvalidSettingError(f"start_method={method!r} is not one of {', '.join(START_METHODS)}")
    return _CONTEXTS[method]


class _Starting:
    """What must not happen twice at once in this process: starting a worker, and reaping one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.fork_server: _ForkServer | None = None
        self.retired: list[int] = []


_state = _Starting()


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Start one worker at a time, so that none inherits a descriptor meant for another."""
    with _state.lock, standard_descriptors():
        yield


@contextlib.contextmanager
def standard_descriptors() -> Iterator[None]:
    """Keep new descriptors out of the places of closed standard streams.

    Where stdin is closed, the next pipe would become descriptor 0, and a worker, which closes its stdin,
    would close that pipe.
    """
    opened = []
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
        opened.append(descriptor)
    os.close(descriptor)
    try:
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)


@contextlib.contextmanager
def interrupts_blocked(tracker: Any = resource_tracker) -> Iterator[None]:
    """Start workers that never see Ctrl-C, which is the caller's to handle: not even their first line does.

    They inherit the block, and lift it where they ignore the signal.

    Parameters
    ----------
    tracker : module
        Of resources, of the library that starts the workers: its process lifts the block when it starts.
    """
    tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pickled(popen: Any, process_object: process.BaseProcess) -> memoryview:
    """Return what a new interpreter needs before its first line of our code, and that process object."""
    preparation = {
        "name": process_object.name,
        "authkey": process.current_process().authkey,
        "sys_path": [entry or os.curdir for entry in sys.path],
        "log_to_stderr": util._log_to_stderr,  # type: ignore[attr-defined]
    }
    buffer = io.BytesIO()
    context.set_spawning_popen(popen)
    try:
        reduction.dump(preparation, buffer)
        reduction.dump(process_object, buffer)
    finally:
        context.set_spawning_popen(None)
    return buffer.getbuffer()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class _SpawnPopen(popen_spawn_posix.Popen):
    """`multiprocessing`'s own, less the import of the main module."""

    def _launch(self, process_obj: process.BaseProcess) -> None:
        tracker = resource_tracker.getfd()
        self._fds.append(tracker)  # type: ignore[attr-defined]
        data = _pickled(self, process_obj)
        parent_r, child_w = os.pipe()
        child_r, parent_w = os.pipe()
        self.sentinel = parent_r
        self.finalizer = util.Finalize(self, _close, (parent_r, parent_w))
        try:
            command = spawn.get_command_line(tracker_fd=tracker, pipe_handle=child_r)
            self._fds.extend([child_r, child_w])  # type: ignore[attr-defined]
            executable: Any = spawn.get_executable()
            self.pid = util.spawnv_passfds(executable, command, self._fds)  # type: ignore[attr-defined]
        finally:
            os.close(child_r)
            os.close(child_w)
        with os.fdopen(parent_w, "wb", closefd=False) as file:
            file.write(data)


class _ForkServerPopen(popen_forkserver.Popen):
    """`multiprocessing`'s own, less the import of the main module, by anyfold's own fork server."""

    def _launch(self, process_obj: process.BaseProcess) -> None:
        data = _pickled(self, process_obj)
        while True:
            server = _fork_server()
            try:
                self._launch_by(server, data)
            except (OSError, EOFError):
                if not server.has_ended(_LAST_BREATH):
                    raise
            else:
                return

    def _launch_by(self, server: _ForkServer, data: memoryview) -> None:
        self.sentinel, write = server.connect_to_new_process(self._fds)  # type: ignore[attr-defined]
        self.finalizer = util.Finalize(self, _close, (os.dup(write), self.sentinel))
        try:
            with os.fdopen(write, "wb") as file:
                file.write(data)
            self.pid = forkserver.read_signed(self.sentinel)
        except BaseException:
            self.finalizer()
            raise


def _popen(popen: type[popen_fork.Popen], process_object: process.BaseProcess) -> popen_fork.Popen:
    with starting(), interrupts_blocked():
        return popen(process_object)


class _SpawnProcess(context.SpawnProcess):
    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        return _popen(_SpawnPopen, process_obj)


class _ForkServerProcess(context.ForkServerProcess):
    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        return _popen(_ForkServerPopen, process_obj)


class _ForkProcess(context.ForkProcess):
    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> Any:
        return _popen(popen_fork.Popen, process_obj)


class _SpawnContext(context.SpawnContext):
    Process = _SpawnProcess


class _ForkServerContext(context.ForkServerContext):
    Process = _ForkServerProcess


class _ForkContext(context.ForkContext):
    Process = _ForkProcess


_CONTEXTS: dict[str, context.BaseContext] = {
    "forkserver": _ForkServerContext(),
    "spawn": _SpawnContext(),
    "fork": _ForkContext(),
}


class _ForkServer(forkserver.ForkServer):
    """A fork server for one environment: its libraries have read their variables when they loaded.

    It is started by a thread that lives as long as it does, for it asks the kernel to be told when that
    thread ends, and so when this process does; its workers ask the same of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.environ = _seen_by_libraries()
        self._keeper: threading.Thread | None = None
        self.set_forkserver_preload(_PRELOAD)

    def start(self) -> None:
        if self._keeper is not None and self._keeper.is_alive():
            return
        outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._keeper = threading.Thread(target=self._keep, args=(outcome,), daemon=True)
        self._keeper.name = "anyfold-fork-server"
        self._keeper.start()
        error = outcome.get()
        if error is not None:
            raise error

    def _keep(self, outcome: queue.SimpleQueue[BaseException | None]) -> None:
        try:
            # The server asks for the default start method, which would settle what the user may yet choose.
            undecided = multiprocessing.get_start_method(allow_none=True) is None
            with interrupts_blocked():
                self.ensure_running()
            if undecided:
                multiprocessing.set_start_method(None, force=True)
            ended = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None
        except BaseException as error:
            outcome.put(error)
            return
        outcome.put(None)
        if ended is None:
            threading.Event().wait()
        else:
            _wait_for(ended)

    def has_ended(self, patience: float) -> bool:
        """Return whether the server has ended, or does within so many seconds."""
        assert self._keeper is not None
        self._keeper.join(patience)
        return not self._keeper.is_alive()

    @property
    def pid(self) -> int:
        """The server's process id; 0 where none was started."""
        pid: int | None = getattr(self, "_forkserver_pid", None)
        return pid or 0

    def retire(self) -> None:
        """Let the server end with its last worker."""
        if self.pid:
            os.close(vars(self)["_forkserver_alive_fd"])
            self._forkserver_pid = None


def _wait_for(pidfd: int, timeout: float | None = None) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(None if timeout is None else timeout * 1000)
    os.close(pidfd)


def _fork_server() -> _ForkServer:
    server = _state.fork_server
    if server is not None and server.environ != _seen_by_libraries():
        _retire(server)
        server = None
    if server is None:
        server = _state.fork_server = _ForkServer()
    server.start()
    return server


def _seen_by_libraries() -> dict[str, str]:
    """Return the variables that may count when modules are imported; anyfold's own are read by each call."""
    return {name: value for name, value in environment().items() if not name.startswith("ANYFOLD_")}


def _retire(server: _ForkServer) -> None:
    _state.retired.append(server.pid)
    server.retire()
    _state.retired = [pid for pid in _state.retired if pid and not _reaped(pid)]


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def stop_fork_server(timeout: float = 1.0) -> None:
    """End the fork server; it waits for workers that still live, this function no longer than `timeout`."""
    with _state.lock:
        server, _state.fork_server = _state.fork_server, None
        if server is None or not server.pid:
            return
        pid = server.pid
        server.retire()
        if hasattr(os, "pidfd_open"):
            _wait_for(os.pidfd_open(pid), timeout)
        if not _reaped(pid):
            _state.retired.append(pid)


def _forget_in_child() -> None:
    global _state
    server = _state.fork_server
    _state = _Starting()
    if server is not None:
        server.retire()  # closes this process's copy only: the server is the parent's


os.register_at_fork(after_in_child=_forget_in_child)
