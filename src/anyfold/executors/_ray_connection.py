"""Which Ray is meant: the one that runs, one at an address, or a quiet local instance."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray

from anyfold.errors import InvalidSettingError
from anyfold.executors._expected import RAY_VARIABLES
from anyfold.executors._ray_local import LocalRay, read_token_again

__all__ = [
    "Connection",
    "cluster_resources",
    "connect",
    "disconnect",
    "is_connected",
    "nodes",
    "this_node",
]

_LAST_REFERENCES = 1.0  # seconds that threads of Ray's may hold on to what anyfold has let go
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True, slots=True)
class Connection:
    """How this process came to Ray."""

    local: bool
    """Whether the instance is anyfold's."""
    owned: bool
    """Whether anyfold has connected, so that anyfold disconnects."""


@dataclass(slots=True)
class _Own:
    """The connection that anyfold has made; a process has one at most."""

    n_users: int = 0
    connection: Connection | None = None
    instance: LocalRay | None = None
    node: Any = None
    """What Ray itself knows the connection by."""

    def is_connected(self) -> bool:
        """Return whether the user has not ended the connection, or made another."""
        return self.connection is not None and ray.is_initialized() and _node() is self.node


_own = _Own()
_lock = threading.Lock()
_given_away: list[LocalRay | None] = []
"""Instances on which something of the user's ran when they were no longer needed."""


def connect(max_workers: int | None, address: str | None) -> Connection:
    """Find Ray; see `RayExecutor`."""
    with _lock:
        if ray.is_initialized():
            _check_same(address)
            if _own.connection is None or not _own.is_connected():
                return Connection(local=False, owned=False)
            _own.n_users += 1
            return _own.connection
        found = next((value for name in RAY_VARIABLES if (value := os.environ.get(name))), None)
        address = address or found
        local = not address or address == "local"
        with _undisturbed():
            if local:
                _own.instance = LocalRay(max_workers)
            else:
                assert address
                _connect(address)
        _own.connection, _own.node = Connection(local, owned=True), _node()
        _own.n_users = 1
        return _own.connection


def disconnect(connection: Connection) -> None:
    """Leave Ray, where anyfold had connected and nobody else uses it; a local instance ends."""
    if not connection.owned:
        return
    with _lock:
        _own.n_users -= 1
        if _own.n_users:
            return
        connected, instance = _own.is_connected(), _own.instance
        _own.connection = _own.instance = _own.node = None
        if connected and _serves_others():
            _given_away.append(instance)
            return
        if connected:
            ray.shutdown()
        if instance is not None:
            instance.clear_away()


def is_connected(connection: Connection) -> bool:
    """Return whether a connection is still the one of this process, and a local instance lives."""
    if not connection.owned:
        return ray.is_initialized()
    alive = connection is _own.connection and _own.is_connected()
    return alive and (not connection.local or bool(_own.node.remaining_processes_alive()))


def _node() -> Any:
    return ray._private.worker._global_node


def _serves_others() -> bool:
    """Return whether the user has actors or objects there: Ray takes whatever runs for what to use."""
    worker: Any = ray._private.worker.global_worker
    actors = ray._private.state.state.actor_table(None, worker.current_job_id)
    if any(actor["State"] != "DEAD" for actor in actors.values()):
        return True
    give_up = time.monotonic() + _LAST_REFERENCES
    while any(count["local"] for count in worker.core_worker.get_all_reference_counts().values()):
        if time.monotonic() > give_up:
            return True
        time.sleep(0.01)
    return False


def _check_same(address: str | None) -> None:
    """Refuse an address other than that of the Ray to which this process is connected."""
    ask: Any = ray.get_runtime_context
    there: str = ask().gcs_address
    is_own = _own.instance is not None
    if address in (None, "", there) or address == ("local" if is_own else "auto"):
        return
    assert address
    if _resolved(address) != _resolved(there):
        raise InvalidSettingError(
            f"address={address!r}: this process is connected to Ray at {there!r}, and has one connection at "
            "a time: give no address to use it, or end it first "
            f"({'shut down the executor that started it' if is_own else 'ray.shutdown()'})"
        )


def _resolved(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        host = socket.gethostbyname(host)
    return host, port


def _connect(address: str) -> None:
    if address.startswith("ray://"):
        raise InvalidSettingError(
            f"address={address!r} is one of Ray Client, which has no access to the object store: run the "
            "script on a machine of the cluster (ray job submit) with address='auto'"
        )
    read_token_again()
    try:
        ray.init(address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        if any(type(cause).__name__ == "AuthenticationError" for cause in _causes(error)):
            raise InvalidSettingError(
                f"the Ray cluster at {address!r} wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN "
                "or RAY_AUTH_TOKEN_PATH where the token of the cluster is not that of ~/.ray/auth_token"
            ) from error
        raise InvalidSettingError(
            f"no Ray cluster answers at {address!r} ({error}): start one with 'ray start --head', or give no "
            f"address, neither as an option nor as {' or '.join(RAY_VARIABLES)}, to run on this machine"
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave signal handlers, environment, warnings and logging as they are while Ray starts."""
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    before = {name: value for name, value in os.environ.items() if _is_rays(name)}
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        os.environ.update({name: value for name, value in _QUIET.items() if name not in before})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        for name in [name for name in os.environ if _is_rays(name) and name not in before]:
            del os.environ[name]
        os.environ.update(before)
        if in_main:
            for number, handler in handlers.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)


def _is_rays(variable: str) -> bool:
    return variable.startswith("RAY_") or variable == "PYTHONBREAKPOINT"


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
