"""A quiet Ray instance on this machine that ends with its caller.

It listens on the loopback interface only, takes a token of its own, has no dashboard, prints nothing, and
keeps what it writes in a folder that goes with it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import ray

from anyfold._data.memory import available_memory
from anyfold.executors import _ray_remains
from anyfold.settings import effective_n_jobs

__all__ = ["LocalRay", "read_token_again"]

_SMALLEST_STORE = 100_000_000  # bytes; Ray refuses less than 75 MB
_COMPANY = ("start_monitor", "start_log_monitor", "start_api_server")
_PRIORITY = "RAY_worker_niceness"
_AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


class LocalRay:
    """A local instance, to which this process is connected.

    Parameters
    ----------
    max_workers : int or None
        How many tasks shall be able to run at once.
    """

    def __init__(self, max_workers: int | None) -> None:
        self._folder = _Folder()
        try:
            with (
                _changed_variables({_ray_remains.MARK: self._folder.path, **_own_token(), **_own_priority()}),
                _on_loopback(),
                _bare(),
            ):
                read_token_again()
                ray.init(
                    "local",
                    num_cpus=max(
                        max_workers or 1, effective_n_jobs(None)
                    ),  # executors that come later use it too
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    object_store_memory=_store_size(),
                    _node_ip_address="127.0.0.1",
                    _temp_dir=self._folder.path,
                )
            _stop_printing()
        except BaseException:
            ray.shutdown()
            self.clear_away()
            raise

    def clear_away(self) -> None:
        """Remove the folder of an instance that has ended."""
        read_token_again()
        self._folder.remove()


class _Folder:
    """Where a local instance keeps sockets and logs; where this one is killed, another removes it."""

    def __init__(self) -> None:
        # The names of sockets have 107 bytes, of which Ray needs 70.
        base = tempfile.gettempdir()
        self.path = tempfile.mkdtemp(prefix="anyfold-ray-", dir=base if len(base) <= 16 else "/tmp")
        program = [sys.executable, "-IS", _ray_remains.__file__, self.path]
        self._remover = subprocess.Popen(
            ["sh", "-c", 'cat; exec "$@"', "sh", *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def remove(self) -> None:
        """Remove the folder, and what has not ended with the instance."""
        assert self._remover.stdin is not None
        _ray_remains.clear_away(self.path)  # first: where this is cut short, the other goes on
        self._remover.kill()
        self._remover.wait()
        self._remover.stdin.close()


@contextlib.contextmanager
def _changed_variables(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _own_token() -> dict[str, str]:
    """Return variables that spare Ray from writing a token into the user's home.

    Clusters that the user starts afterwards would take that one, and refuse nodes that have it not.
    """
    if any(os.environ.get(name) for name in _AUTH):
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def _own_priority() -> dict[str, str]:
    """Return variables that give workers the caller's priority, as they have it on all other backends.

    With Ray's own, which is lower, they hardly get on beside whatever else the machine does.
    """
    return {} if _PRIORITY in os.environ else {_PRIORITY: "0"}


def read_token_again() -> None:
    """Have Ray take its mode and token from the environment as it is now; it keeps what it has read."""
    with contextlib.suppress(ImportError, AttributeError):  # Ray before 2.52
        native: Any = importlib.import_module("ray._raylet")
        native.AuthenticationTokenLoader.instance().reset_cache()
        native.Config.initialize("")


def _store_size() -> int:
    size = int(min(0.3 * available_memory(), 0.8 * _free_shared_memory()))
    return max(_SMALLEST_STORE, size)


def _free_shared_memory() -> int:
    try:
        return shutil.disk_usage("/dev/shm").free
    except OSError:
        return available_memory()


def _stop_printing() -> None:
    """End the thread in which Ray prints what ends a worker; anyfold tells it where it belongs."""
    worker: Any = ray._private.worker.global_worker
    with contextlib.suppress(AttributeError):
        worker.threads_stopped.set()
        worker.gcs_error_subscriber.close()
        worker.listener_thread.join(5)


@contextlib.contextmanager
def _bare() -> Iterator[None]:
    """Start none of the processes that serve dashboards, autoscaling and the printing of logs.

    Each is an interpreter that takes seconds to start, and nothing here has a use for them.
    """
    node: Any = ray._private.node.Node
    before = {name: getattr(node, name) for name in _COMPANY if hasattr(node, name)}
    for name in before:
        setattr(node, name, lambda self, **_: None)
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(node, name, method)


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
