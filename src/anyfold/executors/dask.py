"""The ``dask`` backend: the workers of a Dask cluster, the user's or one on this machine.

submit ──> waiting ──max_workers at a time──> Dask's scheduler ──> worker: run_call
                                                                      │
future <── settled in a thread of its own <── followed in the client's event loop
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from distributed import Client, KilledWorker

from anyfold._mail.messages import Report
from anyfold._mail.network import NetworkMailbox, SilentMailbox
from anyfold._worker.call import Answer, load_answer
from anyfold.errors import InvalidSettingError, SharedLost, WorkerLostError
from anyfold.executors import _dask_worker as on_worker
from anyfold.executors._dask_connection import connect
from anyfold.executors._dask_data import Copies, DaskShared
from anyfold.executors._options import check_max_workers
from anyfold.executors._window import Task, WindowedExecutor
from anyfold.executors.base import Isolation, Mailbox
from anyfold.settings import get_config

__all__ = ["DaskExecutor", "executor_of"]

P = ParamSpec("P")
T = TypeVar("T")

_MOST_ATTEMPTS = 10  # of one call to find a worker that can begin it
_RETURN = 10.0  # seconds that a nanny has to start another worker
_PATIENCE = 2.0  # seconds that workers have to say whether they are busy


class DaskExecutor(WindowedExecutor):
    """Runs tasks on the workers of a Dask cluster.

    The cluster is, in this order: that of `client`; the one at `address` or ``ANYFOLD_DASK_ADDRESS``; that of
    the current client; a local one of single-threaded processes, which ends with this executor. No other
    cluster is ever stopped. A worker process runs one task at a time, however many threads it has.

    Parameters
    ----------
    max_workers : int, optional
        How many tasks may run at once; by default as many as the cluster has worker processes, and on a local
        one all cores.
    address : str, optional
        Of a scheduler, as ``"tcp://10.0.0.1:8786"``.
    client : distributed.Client, optional
        A connection of yours, which stays open.

    Attributes
    ----------
    max_workers : int
    capabilities : frozenset of str
        Lost workers are replaced, and running work can be stopped, where workers have nannies, as they do by
        default.

    Raises
    ------
    InvalidSettingError
        If no scheduler answers at the address.
    """

    isolation: Isolation = "process"

    def __init__(
        self, max_workers: int | None = None, *, address: str | None = None, client: Client | None = None
    ) -> None:
        if max_workers is not None:
            max_workers = check_max_workers(max_workers)
        connection = connect(max_workers, address, client)
        self._client, self._local = connection.client, connection.local
        self._owns_client = self.keep_warm = connection.owned
        self._condemned: set[str] = set()
        workers = self._workers()
        nannies = all(worker["nanny"] for worker in workers.values())
        self.max_workers = max_workers or max(1, len(workers))
        self.capabilities: frozenset[str] = frozenset(
            {"share", "resources"}
            | ({"healing", "stop_running"} if nannies else set())
            | ({"mailbox"} if self._local is None else set())
        )
        self._name = f"anyfold-{secrets.token_hex(6)}"
        self._copies = Copies(self._client, one_host=self._local is not None)
        super().__init__(self.max_workers)

    def __repr__(self) -> str:
        return f"DaskExecutor({self._client.scheduler.address!r}, max_workers={self.max_workers})"

    # ---- tasks --------------------------------------------------------------------------------

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)``; what cannot be pickled makes a future that raises."""
        return self._enqueue(on_worker.run_call, {}, fn, args, kwargs)

    def submit_with_resources(
        self, resources: Mapping[str, float], fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Like ``submit``, on a worker that was started with these resources (``--resources "GPU=1"``).

        ``"cpu"`` needs none: a worker process runs one task at a time.

        Raises
        ------
        InvalidSettingError
            If no worker of the cluster has them.
        """
        needed = {name: amount for name, amount in resources.items() if name != "cpu" and amount}
        if needed:
            offers = [worker["resources"] for worker in self._workers().values()]
            if not any(all(offer.get(n, 0) >= amount for n, amount in needed.items()) for offer in offers):
                raise InvalidSettingError(
                    f"resources {needed!r}: no worker of the Dask cluster has them, they have {offers!r}; "
                    "start workers with --resources"
                )
        return self._enqueue(on_worker.run_call, {"resources": needed} if needed else {}, fn, args, kwargs)

    def submit_shared(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[DaskShared[T]]:
        """Schedule a call whose result stays on the host of its worker."""
        return self._enqueue(on_worker.run_shared, {}, fn, args, kwargs)

    def _start(self, task: Task) -> None:
        asyncio.run_coroutine_threadsafe(self._follow(task), self._client.loop.asyncio_loop)

    async def _follow(self, task: Task) -> None:
        """Submit a task to Dask and see it through to its answer; runs in the client's event loop."""
        try:
            answer = await self._answer(task)
        except KilledWorker as error:
            answer = Answer(None, _worker_lost(error))
        except (concurrent.futures.CancelledError, asyncio.CancelledError) as error:
            answer = Answer(None, self._cancelled(task, error))
        except BaseException as error:
            answer = Answer(None, error)
        self._finish(task, answer)

    async def _answer(self, task: Task) -> Answer:
        for _ in range(_MOST_ATTEMPTS):
            needs = self._copies.needs(task.keys)
            task.inner = self._client.submit(
                task.run,
                self._name,
                task.payload,
                needs,
                key=f"{self._name}-{secrets.token_hex(8)}",
                pure=False,
                retries=0,
                **task.options,
            )
            try:
                answer = await task.inner
            except KilledWorker as killed:
                if killed.last_worker.address in self._condemned and not task.stopped:
                    continue  # sent to a worker that stop_running had killed just before
                raise
            if not isinstance(answer, on_worker.Missing):
                break
            await self._check_not_lost(task.inner.key)
            missing = tuple(need for need in needs if need.key in answer.keys)
            try:
                await self._copies.bring(answer.worker, missing)
            except OSError:
                continue  # that worker is gone
        else:
            return Answer(
                None, SharedLost("shared data could not be brought to a worker of the Dask cluster")
            )
        value, exception = load_answer(answer)
        if task.run is on_worker.run_shared and exception is None:
            value = await self._copies.adopt(value)
        return Answer(value, exception)

    async def _check_not_lost(self, key: str) -> None:
        """Raise `WorkerLostError` where Dask has run a task again after it had lost its worker."""
        for _, event in await self._client.get_events("all"):
            if event.get("action") == "remove-worker" and key in event.get("processing-tasks", ()):
                raise WorkerLostError(f"the Dask worker {event['worker']} ended while it had the task")

    def _cancelled(self, task: Task, error: BaseException) -> BaseException:
        if task.stopped:
            lost = WorkerLostError("the task was stopped")
        elif self._client.status == "running":
            lost = WorkerLostError(f"Dask has cancelled the task: {error}")
        else:
            self._broken = BrokenExecutor(f"the connection to the Dask cluster is lost: {error}")
            return self._broken
        lost.__cause__ = error
        return lost

    # ---- what else it can do --------------------------------------------------------------------

    def share(self, obj: T) -> DaskShared[T]:
        """Publish a read-only object, once for each host."""
        self._check_open()
        temp_dir = get_config()["temp_dir"].value
        return self._copies.share(obj, None if temp_dir is None else str(temp_dir))

    def open_mailbox(self, deliver: Callable[[Report], None]) -> Mailbox:
        """Open a mailbox that all workers reach; a silent one where some cannot connect to this host."""
        mine = self._client.scheduler_comm.comm.local_address
        if mine.startswith("tcp://"):  # what is encrypted must not have an open side entrance
            host = mine.removeprefix("tcp://").rpartition(":")[0].strip("[]")
            mailbox = NetworkMailbox(deliver, host)
            reached = self._client.run(on_worker.can_reach, mailbox.address, on_error="ignore")
            if all(reached.values()):
                return mailbox
            mailbox.close()
        n_workers = len(self._client.nthreads())
        return SilentMailbox(on_worker.evidence_folder, partial(self._collect, n_workers))

    def _collect(self, n_workers: int, token: str, unit: int) -> Iterable[str]:
        with contextlib.suppress(TimeoutError):  # the one that was lost may have been its host's only one
            self._client.wait_for_workers(n_workers, _RETURN)
        found: dict[str, str] = self._client.run(on_worker.collect, token, unit, on_error="ignore")
        return found.values()

    def stop_running(self) -> None:
        """Kill the workers that run tasks of this executor; their nannies start others."""
        with self._lock:
            stopped = [task for task in self._handed_over if task.inner is not None]
        if not stopped:
            return
        for task in stopped:
            task.stopped = True
        self._client.sync(self._stop, [task.inner for task in stopped if task.inner is not None])

    async def _stop(self, inner: list[Any]) -> None:
        keys = {future.key for future in inner}
        processing = await self._client.scheduler.processing(workers=None)
        busy = {worker for worker, running in processing.items() if keys.intersection(running)}
        await self._client.cancel(inner, force=True)  # first, so that the scheduler runs none of them again
        others = [worker for worker in processing if worker not in busy]
        if others:
            asking = self._client.run(on_worker.is_busy, self._name, workers=others, on_error="ignore")
            try:
                answers = await asyncio.wait_for(asking, _PATIENCE)
                busy |= {worker for worker, is_busy in answers.items() if is_busy}
            except TimeoutError:
                busy |= set(others)  # not even their event loops run
        self._condemned |= busy
        await self._client.run(on_worker.kill_worker, nanny=True, workers=list(busy), on_error="ignore")

    def _leave(self) -> None:
        self._copies.release_all()
        if self._owns_client:
            self._client.close()
        if self._local is not None:
            self._local.stop()

    def _workers(self) -> Mapping[str, Any]:
        workers: Mapping[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return workers


_of_clients: dict[str, DaskExecutor] = {}
"""By the id of the client."""


def executor_of(client: Client) -> DaskExecutor:
    """Return the executor of a user's client, the same one each time, so that data is not sent again."""
    for name, executor in list(_of_clients.items()):
        if executor._client.status != "running":
            del _of_clients[name]
            executor.shutdown(wait=False, cancel_futures=True)
    if client.id not in _of_clients:
        _of_clients[client.id] = DaskExecutor(client=client)
    return _of_clients[client.id]


def _worker_lost(error: KilledWorker) -> WorkerLostError:
    worker = error.last_worker
    lost = WorkerLostError(
        f"the Dask worker {worker.address} (process {worker.pid}) ended unexpectedly while it had the task",
        worker.pid,
        None,
        (worker.address, worker.pid),
    )
    lost.__cause__ = error
    return lost
