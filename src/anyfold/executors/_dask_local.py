"""A quiet Dask cluster on this machine, in processes of its own that end with their caller.

    caller ──pipe──> helper: scheduler and nannies ──> worker, worker, …
       └────────────────── client ──────────────────────┘

The helper is a program of its own, so that neither it nor the workers import the caller's main module. It
ends, and with it the cluster, when the pipe does: at `LocalDask.stop`, and when the caller is killed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from multiprocessing import forkserver, util
from typing import Any

from anyfold.errors import AnyfoldError

__all__ = ["LocalDask"]


class LocalDask:
    """A scheduler and single-threaded workers on the loopback interface; starts at once.

    Parameters
    ----------
    n_workers : int
        How many worker processes.
    """

    def __init__(self, n_workers: int) -> None:
        program = f"import sys; sys.path[:] = {sys.path!r}; import {__name__} as local; local.main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the caller's to handle
        )
        self.stop = weakref.finalize(self, _stop, self._process)
        """Ends the cluster and returns when it is gone."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"n_workers": n_workers, "argv": sys.argv}).encode() + b"\n")
            self._process.stdin.flush()

    def wait(self) -> str:
        """Return the address of the scheduler when the workers are there."""
        assert self._process.stdout is not None
        address = self._process.stdout.readline().decode().strip()
        if not address:
            self.stop()
            raise AnyfoldError(
                f"a local Dask cluster could not be started: {sys.executable} ended with status "
                f"{self._process.returncode}; its error output says why"
            )
        return address


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.wait()
    process.stdout.close()


# ---- in the helper ----------------------------------------------------------------------------


def main() -> None:
    """Run a cluster until standard input ends."""
    # What others print in this process must not be taken for the address.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    method = _start_method()
    from distributed.core import Status

    setup = json.loads(sys.stdin.readline())
    sys.argv[:] = setup["argv"]
    folder = tempfile.mkdtemp(prefix="anyfold-dask-")
    try:
        cluster = _start(setup["n_workers"], folder, method)
        print(cluster.scheduler_address, file=answer, flush=True)
        sys.stdin.read()
        for nanny in cluster.workers.values():
            nanny.status = Status.closing  # so that it starts no other worker
    finally:
        _end_workers()
        _end_fork_server()
        util._exit_function()  # type: ignore[attr-defined]  # removes the semaphores of multiprocessing
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)  # nobody needs the farewells of scheduler and nannies


def _start_method() -> str:
    """Return how workers are started: by a fork server, which imports while this process does, on Linux."""
    if sys.platform != "linux":
        return "spawn"
    multiprocessing.set_forkserver_preload(["anyfold.executors._dask_preload"])
    forkserver.ensure_running()
    return "forkserver"


def _start(n_workers: int, folder: str, method: str) -> Any:
    import dask
    from distributed import LocalCluster

    import anyfold.executors._dask_guard as guard

    preload = dask.config.get("distributed.worker.preload")
    dask.config.set(
        {
            "distributed.scheduler.allowed-failures": 0,  # only anyfold runs a task again
            "distributed.worker.multiprocessing-method": method,
            "distributed.worker.preload": [
                *([preload] if isinstance(preload, str) else preload),
                guard.__name__,
            ],
            # Dask gives up on a worker that is not there so long after it was lost, also if it is lost again.
            "distributed.deploy.lost-worker-timeout": "1000 days",
            "distributed.nanny.pre-spawn-environ": {},  # workers have the caller's environment
            "temporary-directory": folder,
        }
    )
    make: Any = LocalCluster
    return make(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        silence_logs=logging.CRITICAL,
        local_directory=folder,
        memory_limit=0,
    )


def _end_workers() -> None:
    import psutil  # type: ignore[import-untyped]

    workers = multiprocessing.active_children()
    for worker in workers:
        if worker.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)
    processes = []
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(psutil.Process(worker.pid))
    psutil.wait_procs(processes, timeout=2)


def _end_fork_server() -> None:
    server: Any = forkserver
    if (pid := server._forkserver._forkserver_pid) is not None:
        os.kill(pid, signal.SIGKILL)  # it has nothing to put away, and would take its time
        os.waitpid(pid, 0)
