"""The ``ray`` backend: tasks of a Ray cluster, the user's or one on this machine.

submit ──> waiting ──as many as may run──> Ray's scheduler ──> worker: run_call
future <── settled <── Ray's own future <─────────────────────────┘
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from anyfold._mail.messages import Report
from anyfold._mail.network import NetworkMailbox, SilentMailbox
from anyfold._worker.call import Answer, load_answer
from anyfold.errors import InvalidSettingError, WorkerLostError
from anyfold.executors import _ray_worker as on_worker
from anyfold.executors._options import check_max_workers
from anyfold.executors._ray_connection import (
    cluster_resources,
    connect,
    disconnect,
    is_connected,
    nodes,
    this_node,
)
from anyfold.executors._ray_data import RayObjects, RayShared
from anyfold.executors._window import Task, WindowedExecutor
from anyfold.executors.base import Isolation, Mailbox

__all__ = ["RayExecutor"]

P = ParamSpec("P")
T = TypeVar("T")

_LOST = (
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.OutOfMemoryError,
    exceptions.ObjectLostError,
    exceptions.LocalRayletDiedError,
)
_NAMES = {"cpu": "num_cpus", "gpu": "num_gpus"}
_PATIENCE = 20.0  # seconds that a node has to start a worker that tries the mailbox

run_call = ray.remote(max_retries=0)(on_worker.run_call)
run_shared = ray.remote(max_retries=0, num_returns=2)(on_worker.run_shared)
can_reach = ray.remote(max_retries=0, num_cpus=0)(on_worker.can_reach)
collect = ray.remote(max_retries=0, num_cpus=0)(on_worker.collect)


class RayExecutor(WindowedExecutor):
    """Runs tasks on Ray.

    Ray is, in this order: the one that this process has initialized; the cluster at `address`,
    ``ANYFOLD_RAY_ADDRESS`` or ``RAY_ADDRESS``; a local instance without dashboard, on the loopback interface,
    that ends with this executor, unless objects or actors of yours are on it. No other one is ever shut down.

    Parameters
    ----------
    max_workers : int, optional
        How many tasks may run at once; by default as many as the cluster has CPUs.
    address : str, optional
        Of a cluster, as ``"10.0.0.1:6379"`` or ``"auto"``; ``"local"`` starts an instance in any case.

    Attributes
    ----------
    max_workers : int
    capabilities : frozenset of str

    Raises
    ------
    InvalidSettingError
        If there is no cluster at the address.
    """

    isolation: Isolation = "process"
    one_at_a_time = True
    """A process has one connection to Ray."""
    survives_fork = False
    """A fork of a process that is connected to Ray crashes at its end."""

    def __init__(self, max_workers: int | None = None, *, address: str | None = None) -> None:
        if max_workers is not None:
            max_workers = check_max_workers(max_workers)
        self._connection = connect(max_workers, address)
        self.keep_warm = self._connection.owned
        n_cpus = self._n_cpus = int(cluster_resources().get("CPU", 1))
        self.max_workers = max_workers or max(1, n_cpus)
        self.capabilities = frozenset({"healing", "share", "stop_running", "resources"}) | (
            frozenset() if self._connection.local else frozenset({"mailbox"})
        )
        self._objects = RayObjects()
        self._bell: Any = ray.put(None)
        self._sys_path = tuple(sys.path) if self._connection.local else ()
        # Ray keeps the tasks that wait in this process, so that none is lost with a worker. It must not run
        # more than asked for, though.
        super().__init__(2 * self.max_workers if n_cpus <= self.max_workers else self.max_workers)

    def __repr__(self) -> str:
        return f"RayExecutor(max_workers={self.max_workers}, local={self._connection.local})"

    def is_current(self) -> bool:
        """Return whether this process has the same connection to Ray, and that as many CPUs as it had."""
        return (
            self._broken is None
            and is_connected(self._connection)
            and int(cluster_resources().get("CPU", 1)) == self._n_cpus
        )

    # ---- tasks --------------------------------------------------------------------------------

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)``; what cannot be pickled makes a future that raises."""
        return self._enqueue(run_call, {}, fn, args, kwargs)

    def submit_with_resources(
        self, resources: Mapping[str, float], fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Like ``submit``; ``"cpu"`` and ``"gpu"`` are Ray's, other names are custom resources of nodes.

        Raises
        ------
        InvalidSettingError
            If no node of the cluster has them.
        """
        offers = [node["Resources"] for node in nodes()]
        wanted = {name.upper() if name in _NAMES else name: n for name, n in resources.items() if n}
        if not any(all(offer.get(name, 0) >= n for name, n in wanted.items()) for offer in offers):
            raise InvalidSettingError(
                f"resources {dict(resources)!r}: no node of the Ray cluster has them, they have {offers!r}"
            )
        options: dict[str, Any] = {_NAMES[n]: amount for n, amount in resources.items() if n in _NAMES}
        if custom := {name: amount for name, amount in resources.items() if name not in _NAMES}:
            options["resources"] = custom
        return self._enqueue(run_call, options, fn, args, kwargs)

    def submit_shared(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[RayShared[T]]:
        """Schedule a call whose result stays in Ray's store, owned by the caller."""
        return self._enqueue(run_shared, {}, fn, args, kwargs)

    def _start(self, task: Task) -> None:
        try:
            needs = self._objects.needs(task.keys)
            refs = task.run.options(**task.options).remote(task.payload, needs, self._sys_path)
            task.inner = refs if isinstance(refs, list) else [refs]
            task.inner[0].future().add_done_callback(partial(self._read, task, task.inner))
        except Exception as error:
            self._finish(task, Answer(None, error))

    def _read(self, task: Task, refs: list[Any], inner: Future[Any]) -> None:
        error = None if inner.cancelled() else inner.exception()
        if inner.cancelled() or (task.stopped and error is not None):
            answer = Answer(None, WorkerLostError("the task was stopped"))
        elif error is None:
            answer = load_answer(inner.result())
            if len(refs) == 2 and answer.exception is None:
                answer = Answer(self._objects.adopt(refs[1]), None)
        else:
            answer = Answer(None, self._translated(error))
        self._finish(task, answer)

    def _translated(self, error: BaseException) -> BaseException:
        translated: BaseException
        if isinstance(error, _LOST):
            reason = str(error).strip().partition("\n")[0]
            translated = WorkerLostError(
                f"a worker of Ray ended unexpectedly: {type(error).__name__}: {reason}"
            )
        elif isinstance(error, exceptions.RaySystemError) or not ray.is_initialized():
            translated = self._broken = BrokenExecutor(f"the connection to Ray is lost: {error}")
        elif isinstance(error, exceptions.TaskCancelledError):
            translated = CancelledError()
        else:
            return error
        translated.__cause__ = error
        return translated

    # ---- what else it can do --------------------------------------------------------------------

    def share(self, obj: T) -> RayShared[T]:
        """Put a read-only object into Ray's store, once."""
        self._check_open()
        return self._objects.share(obj)

    def open_mailbox(self, deliver: Callable[[Report], None]) -> Mailbox:
        """Open a mailbox that workers on all nodes reach; a silent one where some node cannot connect."""
        if os.environ.get("RAY_USE_TLS") == "1":  # what is encrypted must not have an open side entrance
            return SilentMailbox(on_worker.evidence_folder, _collect)
        here = this_node()
        mailbox = NetworkMailbox(deliver, here)
        others = [node for node in nodes() if node["NodeManagerAddress"] != here]
        with contextlib.suppress(exceptions.RayError):
            if all(ray.get(_on_nodes(others, can_reach, mailbox.network_address), timeout=_PATIENCE)):
                return mailbox
        mailbox.close()
        return SilentMailbox(on_worker.evidence_folder, _collect)

    def stop_running(self) -> None:
        """Kill the workers that run tasks of this executor; Ray starts others."""
        with self._lock:
            stopped = [(task, refs) for task in self._handed_over if (refs := task.inner) is not None]
        for task, _ in stopped:
            task.stopped = True
        if ray.is_initialized():
            _ring(self._bell, lambda: [ray.cancel(refs[0], force=True) for _, refs in stopped])
        else:
            self._broken = BrokenExecutor("Ray was shut down in this process")
            for task, _ in stopped:
                self._finish(task, Answer(None, self._broken))

    def _leave(self) -> None:
        self._objects.release_all()
        del self._bell
        disconnect(self._connection)


def _ring(bell: Any, action: Callable[[], object]) -> None:
    """Have the thread of Ray's that takes in the answers of tasks do something.

    Where a task is cancelled in any other while that one takes in its answer, Ray ends the whole process.

    Parameters
    ----------
    bell : ObjectRef
        Of an object that is there; it must not be freed before the thread has come to it.
    action : callable
        What to do.
    """

    def act(_: object, held: Any = bell) -> None:
        action()

    bell._on_completed(act)


def _on_nodes(nodes: Iterable[Mapping[str, Any]], task: Any, *args: object) -> list[Any]:
    """Run a task once on each node; return the references."""
    return [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            *args
        )
        for node in nodes
    ]


def _collect(token: str, unit: int) -> Iterator[str]:
    for found in _on_nodes(nodes(), collect, token, unit):
        with contextlib.suppress(exceptions.RayError):  # a node that has gone meanwhile
            yield ray.get(found, timeout=_PATIENCE)
