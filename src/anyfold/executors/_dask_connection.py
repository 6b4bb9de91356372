"""Which Dask cluster is meant: the one of a client, at an address, the current one, or a local one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from distributed import Client

from anyfold.errors import InvalidInputError, InvalidSettingError
from anyfold.executors._dask_local import LocalDask
from anyfold.executors._expected import DASK_VARIABLE
from anyfold.settings import effective_n_jobs

__all__ = ["Connection", "connect"]

_SECONDS = 10  # that a scheduler has to answer


@dataclass(frozen=True, slots=True)
class Connection:
    """A client, and what ends with the executor."""

    client: Any
    owned: bool
    """Whether the client is anyfold's."""
    local: LocalDask | None = None
    """The cluster, where it is anyfold's."""


def connect(max_workers: int | None, address: str | None, client: Any) -> Connection:
    """Find the cluster; see `DaskExecutor`."""
    if client is not None:
        return Connection(_checked(client), owned=False)
    address = address or os.environ.get(DASK_VARIABLE)
    if address:
        return Connection(_connect(address), owned=True)
    if (current := _current()) is not None:
        return Connection(_checked(current), owned=False)
    local = LocalDask(effective_n_jobs(max_workers))
    try:
        return Connection(_connect(local.wait()), owned=True, local=local)
    except BaseException:
        local.stop()
        raise


def _connect(address: str) -> Any:
    make: Any = Client
    try:
        client = make(address, set_as_default=False, timeout=_SECONDS)
    except (OSError, ValueError) as error:
        raise InvalidSettingError(
            f"no Dask scheduler answers at {address!r} ({error!r}): start one with 'dask scheduler', or give "
            f"no address, neither as an option nor as {DASK_VARIABLE}, to run on this machine"
        ) from error
    # A worker gets its next task when the answer to the last one is here: a result that waits on a worker
    # that dies would be computed again. So the way there should be short; by default it takes 10 ms.
    client.scheduler_comm.interval = 0.001
    return client


def _current() -> Any:
    find: Any = Client.current
    try:
        return find()
    except ValueError:
        return None


def _checked(client: Any) -> Any:
    if client.status != "running" or client.asynchronous:
        state = "is asynchronous" if client.asynchronous else f"has the status {client.status!r}"
        raise InvalidInputError(
            f"the Dask client {client!r} {state}; needed is a running one, made without asynchronous=True"
        )
    return client
