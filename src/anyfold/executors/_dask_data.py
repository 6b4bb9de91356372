"""Shared objects on a Dask cluster: published once by the caller, copied once to each other host.

    share(obj) ──> file on the caller's host ──opened by workers there
                        │ in pieces, through the scheduler, to one worker per other host
                        ▼
                   file on that host         ──opened by all its workers

A host that joins later, or whose copy went with the worker that had written it, is served when one of its
workers says that it misses the object.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from anyfold._data.files import SharedFile, publish
from anyfold.errors import SharedLost
from anyfold.executors import _dask_worker as on_worker
from anyfold.executors._placed import Need, Placed, noting_keys, owned

__all__ = ["Copies", "DaskShared"]

T = TypeVar("T")

PIECE = 1 << 24  # bytes that are sent at once


@dataclass(slots=True)
class _Copy:
    """A copy on a host of the cluster."""

    worker: str
    file: SharedFile[Any]
    lease: Any
    """Dask's future of the lease that keeps it."""


@dataclass(slots=True)
class _Entry:
    """A shared object, and where it is."""

    key: str
    needs: tuple[str, ...] = ()
    """Shared objects that it refers to."""
    here: SharedFile[Any] | None = None
    elsewhere: list[_Copy] = field(default_factory=list)
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def files(self) -> tuple[SharedFile[Any], ...]:
        here = () if self.here is None else (self.here,)
        return here + tuple(copy.file for copy in self.elsewhere)


class DaskShared(Placed[T], Generic[T]):
    """The caller's handle; pickled, it is a `Placed`."""

    def __init__(self, key: str, copies: Copies) -> None:
        super().__init__(key)
        self._copies = copies
        weakref.finalize(self, copies.release, key)

    def get(self) -> T:
        """Return the object, fetched from the cluster where it is a result that is kept there."""
        self._copies.fetch(self.key)
        return super().get()

    def release(self) -> None:
        """Give up all copies."""
        self._copies.release(self.key)

    def matches(self, obj: object) -> bool:
        """Return whether an object is still what was shared."""
        file = owned.get(self.key)
        if file is None:
            raise SharedLost("shared data was released")
        return file.matches(obj)


class Copies:
    """The objects that one executor shares.

    Parameters
    ----------
    client : distributed.Client
        The connection to the cluster.
    one_host : bool
        Whether all workers are on this host.
    """

    def __init__(self, client: Any, one_host: bool) -> None:
        self._client = client
        self._one_host = one_host
        self._entries: dict[str, _Entry] = {}

    def share(self, obj: T, temp_dir: str | None) -> DaskShared[T]:
        """Publish an object here, and on one worker of each host that cannot read it from here."""
        with noting_keys() as needs:
            file = publish(obj, temp_dir=temp_dir)
        entry = self._add(secrets.token_hex(8), file, tuple(needs))
        if not self._one_host:
            self._client.sync(self._spread, entry)
        return DaskShared(entry.key, self)

    async def adopt(self, kept: tuple[str, str, SharedFile[Any]]) -> DaskShared[Any]:
        """Own a result that a worker keeps in a file."""
        key, worker, file = kept
        entry = self._add(key, None, ())
        entry.elsewhere.append(_Copy(worker, file, await self._lease(key, worker)))
        return DaskShared(key, self)

    def _add(self, key: str, file: SharedFile[Any] | None, needs: tuple[str, ...]) -> _Entry:
        entry = self._entries[key] = _Entry(key, needs, file)
        if file is not None:
            owned[key] = file
        return entry

    def release(self, key: str) -> None:
        """Give up an object; called from any thread, and by the collector."""
        entry = self._entries.pop(key, None)
        owned.pop(key, None)
        if entry is not None and entry.here is not None:
            entry.here.release()

    def release_all(self) -> None:
        """Give up everything."""
        for key in list(self._entries):
            self.release(key)

    def needs(self, keys: Iterable[str]) -> tuple[Need, ...]:
        """Return what a call that refers to these keys needs, in order of dependence."""
        found: dict[str, Need] = {}
        pending = list(keys)
        while pending:
            entry = self._entries.get(pending.pop())
            if entry is not None and entry.key not in found:
                found[entry.key] = Need(entry.key, entry.files)
                pending += entry.needs
        return tuple(found.values())

    async def bring(self, worker: str, needs: tuple[Need, ...]) -> None:
        """Copy to the host of a worker what it could not read from the files that it was told of."""
        for need in needs:
            entry = self._entries.get(need.key)
            if entry is None:
                continue
            async with entry.sending:
                entry.elsewhere = [copy for copy in entry.elsewhere if copy.lease.status == "finished"]
                told = set(map(id, need.files))
                news = (copy for copy in entry.elsewhere if id(copy.file) not in told)
                if any(_host(copy.worker) == _host(worker) for copy in news):
                    continue  # another one has asked for it meanwhile
                if entry.here is None:
                    await self._fetch(entry)
                await self._send(entry, [worker])

    def fetch(self, key: str) -> None:
        """Make an object readable by the caller.

        Raises
        ------
        SharedLost
            If its last copy is gone.
        """
        entry = self._entries.get(key)
        if entry is not None and entry.here is None:
            self._client.sync(self._fetch, entry)

    async def _spread(self, entry: _Entry) -> None:
        readable = await self._client.run(on_worker.can_open, entry.here, on_error="ignore")
        one_per_host = {_host(worker): worker for worker, can in readable.items() if not can}
        await self._send(entry, list(one_per_host.values()))

    async def _send(self, entry: _Entry, workers: list[str]) -> None:
        """Copy an object to some workers, in pieces, all at once; those that are gone get none."""
        file = entry.here
        assert file is not None
        leases = {}
        for worker in workers:
            with contextlib.suppress(OSError, ValueError):
                leases[worker] = await self._lease(entry.key, worker)
        await self._on_all(leases, on_worker.begin_copy, entry.key, file.key, file.nbytes)
        for offset in range(0, file.nbytes, PIECE):
            await self._on_all(
                leases, on_worker.write_copy, entry.key, offset, on_worker.read_copy(file, offset, PIECE)
            )
        copies = await self._on_all(leases, on_worker.finish_copy, entry.key)
        entry.elsewhere += [_Copy(worker, copy, leases[worker]) for worker, copy in copies.items()]

    async def _on_all(self, leases: dict[str, Any], function: Any, *args: Any) -> dict[str, Any]:
        """Call a function on the workers that hold leases; raises what it raises, and drops who is gone."""
        if not leases:
            return {}
        answers = await self._client.run(function, *args, workers=list(leases), on_error="return")
        for worker, answer in list(answers.items()):
            if isinstance(answer, OSError):
                del leases[worker], answers[worker]
            elif isinstance(answer, BaseException):
                raise answer
        return dict(answers)

    async def _fetch(self, entry: _Entry) -> None:
        for copy in entry.elsewhere:
            if on_worker.can_open(copy.file):
                entry.here = owned[entry.key] = copy.file
                return
        for copy in entry.elsewhere:
            with contextlib.suppress(Exception):  # that worker is gone; the next one, or none
                entry.here = owned[entry.key] = await self._copy_here(copy)
                return
        raise SharedLost("the workers that kept a shared result are gone; compute it again")

    async def _copy_here(self, copy: _Copy) -> SharedFile[Any]:
        temporary = secrets.token_hex(8)
        on_worker.begin_copy(temporary, copy.file.key, copy.file.nbytes)
        try:
            for offset in range(0, copy.file.nbytes, PIECE):
                answers = await self._client.run(
                    on_worker.read_copy, copy.file, offset, PIECE, workers=[copy.worker]
                )
                on_worker.write_copy(temporary, offset, answers[copy.worker])
            return on_worker.finish_copy(temporary)
        finally:
            on_worker.drop_copy(temporary)

    async def _lease(self, key: str, worker: str) -> Any:
        name = f"anyfold-lease-{key}-{secrets.token_hex(4)}"
        leases = await self._client.scatter({name: on_worker.Lease(key)}, workers=[worker], hash=False)
        return leases[name]


def _host(worker: str) -> str | None:
    return urlsplit(worker).hostname
