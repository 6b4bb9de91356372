"""An empty function over 20,000 items: `parallel_map` and the best idiom of each raw backend, warm."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import Pool
from multiprocessing.pool import ThreadPool
from typing import Any

from contest import Contender, Contest, main

import anyfold as af

N_ITEMS = 20_000
N_WORKERS = 2
CHUNK = -(-N_ITEMS // (4 * N_WORKERS))
"""What `multiprocessing.Pool.map` makes of it by itself."""

ITEMS = range(N_ITEMS)
TARGET = 2.0
REMARKS = dict.fromkeys(
    ("serial", "threads"),
    "Above the raw call are 1.5 ms (serial) or 3 ms (threads) per call, in which the run is set up and taken "
    "down, and 0.1 microseconds per item, for a look at the clock after every 16: a group that turns out to "
    "take long is cut there.",
)


def empty(item: int) -> int:
    """Do nothing."""
    return item


def empties(items: Sequence[int]) -> list[int]:
    """Do nothing with each of several items."""
    return [empty(item) for item in items]


def chunks() -> list[range]:
    """Return the items in parts."""
    return [ITEMS[start : start + CHUNK] for start in range(0, N_ITEMS, CHUNK)]


def joined(parts: Iterable[Sequence[int]]) -> list[int]:
    """Return all items of several parts."""
    return [item for part in parts for item in part]


def serial() -> dict[str, Callable[[], Any]]:
    return {"list(map)": lambda: list(map(empty, ITEMS))}


def threads() -> dict[str, Callable[[], Any]]:
    executor, pool = ThreadPoolExecutor(N_WORKERS), ThreadPool(N_WORKERS)
    return {
        "ThreadPoolExecutor.map": lambda: list(executor.map(empty, ITEMS)),
        "ThreadPool.map": lambda: pool.map(empty, ITEMS),
    }


def multiprocessing() -> dict[str, Callable[[], Any]]:
    pool = Pool(N_WORKERS)
    atexit.register(pool.terminate)
    return {"Pool.map": lambda: pool.map(empty, ITEMS)}


def processes() -> dict[str, Callable[[], Any]]:
    executor = ProcessPoolExecutor(N_WORKERS)
    return {f"map, chunksize={CHUNK}": lambda: list(executor.map(empty, ITEMS, chunksize=CHUNK))}


def loky() -> dict[str, Callable[[], Any]]:
    from loky import get_reusable_executor

    def run() -> list[int]:
        return list(get_reusable_executor(N_WORKERS).map(empty, ITEMS, chunksize=CHUNK))

    return {f"map, chunksize={CHUNK}": run}


def joblib() -> dict[str, Callable[[], Any]]:
    from joblib import Parallel, delayed

    def run(**options: Any) -> Any:
        return Parallel(N_WORKERS, **options)(delayed(empty)(item) for item in ITEMS)

    return {"Parallel": run, f"batch_size={CHUNK}": lambda: run(batch_size=CHUNK, pre_dispatch="all")}


def ray() -> dict[str, Callable[[], Any]]:
    import ray
    from ray.util.multiprocessing import Pool as RayPool

    ray.init("local", num_cpus=N_WORKERS, include_dashboard=False, log_to_driver=False)
    task = ray.remote(empties)
    pool = RayPool(N_WORKERS)
    return {
        "tasks of chunks": lambda: joined(ray.get([task.remote(part) for part in chunks()])),
        "ray.util.multiprocessing": lambda: pool.map(empty, ITEMS),
    }


def dask() -> dict[str, Callable[[], Any]]:
    from distributed import Client

    client = Client(n_workers=N_WORKERS, threads_per_worker=1, dashboard_address=None)
    atexit.register(client.close)
    return {
        "tasks of chunks": lambda: joined(
            client.gather([client.submit(empties, part, pure=False) for part in chunks()])
        )
    }


def _workload(backend: Callable[[], dict[str, Callable[[], Any]]]) -> Contest:
    name = backend.__name__
    raw = [Contender(f"{name}: {idiom}", run) for idiom, run in backend().items()]
    ours = Contender(
        f"{name}: parallel_map",
        lambda: af.parallel_map(empty, ITEMS, backend=name, n_jobs=N_WORKERS, progress=False),
        ours=True,
    )
    return Contest(
        f"{N_ITEMS} empty calls on {name}",
        [*raw, ours],
        TARGET,
        same=lambda a, b: a == b,
        remark=REMARKS.get(name, ""),
    )


BACKENDS = (serial, threads, multiprocessing, processes, loky, joblib, ray, dask)
WORKLOADS = {backend.__name__: lambda backend=backend: _workload(backend) for backend in BACKENDS}

if __name__ == "__main__":
    main(WORKLOADS, __doc__)
