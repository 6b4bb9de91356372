"""Which Ray is meant: the one that runs, one at an address, or a quiet local instance."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray

from anyfold._data.memory import available_memory
from anyfold.errors import InvalidSettingError

__all__ = ["Connection", "cluster_resources", "connect", "disconnect", "nodes", "this_node"]

_VARIABLES = ("ANYFOLD_RAY_ADDRESS", "RAY_ADDRESS")
_MARK = "_ANYFOLD_RAY"
_SMALLEST_STORE = 100_000_000  # bytes; Ray refuses less than 75 MB


@dataclass(frozen=True, slots=True)
class Connection:
    """How this process came to Ray."""

    local: bool
    """Whether the instance is anyfold's."""
    owned: bool
    """Whether anyfold has connected, so that anyfold disconnects."""


class _Folder:
    """Where a local instance keeps sockets and logs; a process removes it that outlives this one."""

    def __init__(self) -> None:
        # The names of sockets have 107 bytes, of which Ray needs 70.
        base = tempfile.gettempdir()
        self.path = tempfile.mkdtemp(prefix="anyfold-ray-", dir=base if len(base) <= 16 else "/tmp")
        # Some of Ray's processes outlive a caller that was killed by a minute; they know it by this mark.
        remove = (
            f'cat; sleep 2; for e in $(grep -lzs "^{_MARK}=$1\\$" /proc/[0-9]*/environ); do '
            'p=${e#/proc/}; kill -9 "${p%/environ}"; done; sleep 1; rm -rf "$1"'
        )
        self._remover = subprocess.Popen(
            ["sh", "-c", remove, "sh", self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def remove(self) -> None:
        """Remove the folder."""
        assert self._remover.stdin is not None
        self._remover.kill()
        self._remover.wait()
        self._remover.stdin.close()
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(slots=True)
class _Own:
    """The connection that anyfold has made; a process has one at most."""

    n_users: int = 0
    connection: Connection | None = None
    folder: _Folder | None = None


_own = _Own()
_lock = threading.Lock()


def connect(max_workers: int | None, address: str | None) -> Connection:
    """Find Ray; see `RayExecutor`."""
    with _lock:
        if ray.is_initialized():
            if _own.connection is not None:
                _own.n_users += 1
                return _own.connection
            return Connection(local=False, owned=False)
        found = next((value for name in _VARIABLES if (value := os.environ.get(name))), None)
        address = address or found
        with _undisturbed():
            if address and address != "local":
                _connect(address)
            else:
                _own.folder = _Folder()
                try:
                    _start(max_workers, _own.folder.path)
                except BaseException:
                    _own.folder.remove()
                    raise
                finally:
                    os.environ.pop(_MARK, None)
        _own.connection = Connection(local=not address or address == "local", owned=True)
        _own.n_users = 1
        return _own.connection


def disconnect(connection: Connection) -> None:
    """Leave Ray, where anyfold had connected and nobody else of anyfold's uses it; a local instance ends."""
    if not connection.owned:
        return
    with _lock:
        _own.n_users -= 1
        if _own.n_users == 0:
            folder, _own.connection, _own.folder = _own.folder, None, None
            ray.shutdown()
            if folder is not None:
                folder.remove()


def _connect(address: str) -> None:
    if address.startswith("ray://"):
        raise InvalidSettingError(
            f"address={address!r} is one of Ray Client, which has no access to the object store: run the "
            "script on a machine of the cluster (ray job submit) with address='auto'"
        )
    try:
        ray.init(address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InvalidSettingError(
            f"no Ray cluster answers at {address!r} ({error}): start one with 'ray start --head', or give no "
            f"address, neither as an option nor as {' or '.join(_VARIABLES)}, to run on this machine"
        ) from error


def _start(max_workers: int | None, folder: str) -> None:
    store = int(min(0.3 * available_memory(), 0.8 * _free_shared_memory()))
    os.environ[_MARK] = folder
    with _on_loopback():
        ray.init(
            "local",
            num_cpus=max(max_workers or 1, _n_cores()),  # executors that come later use it too
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=max(_SMALLEST_STORE, store),
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
    _stop_printing()


def _stop_printing() -> None:
    """End the thread in which Ray prints what ends a worker; anyfold tells it where it belongs."""
    worker: Any = ray._private.worker.global_worker
    with contextlib.suppress(AttributeError):
        worker.threads_stopped.set()
        worker.gcs_error_subscriber.close()
        worker.listener_thread.join(5)


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Keep Ray from taking the loopback interface for a mistake and listening on all others too."""
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False  # what Ray does by itself on Windows and macOS
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_shared_memory() -> int:
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return available_memory()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave signal handlers, environment, warnings and logging as they are while Ray starts."""
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    quiet = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    before = {name: os.environ.get(name) for name in quiet}
    os.environ.update({name: value for name, value in quiet.items() if before[name] is None})
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
        if in_main:
            for number, handler in handlers.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


def cluster_resources() -> dict[str, float]:
    """Return what all nodes have together."""
    ask: Any = ray.cluster_resources
    resources: dict[str, float] = ask()
    return resources


def nodes() -> list[dict[str, Any]]:
    """Return the nodes that are alive."""
    ask: Any = ray.nodes
    return [node for node in ask() if node["Alive"]]


def this_node() -> str:
    """Return the address of this node."""
    ask: Any = ray.util.get_node_ip_address
    return str(ask())
