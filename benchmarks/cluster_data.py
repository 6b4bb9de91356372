"""What a large array costs on a Ray or Dask cluster of two machines: bytes on the wire, memory on each.

The second machine is played by namespaces of Linux: processes, shared memory, a temporary folder and a
network of its own, and the kernel counts the bytes on the one cable to it.
Needs root, ``ip`` and ``unshare``.

    sudo python benchmarks/cluster_data.py ray --give-back
    sudo python benchmarks/cluster_data.py dask --megabytes 500
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import KFold

import anyfold as af

HERE, THERE = "10.213.7.1", "10.213.7.2"
CABLE = Path("/sys/class/net/anyfold0/statistics")
N_MODELS, N_FOLDS = 8, 5
GIVES_BACK = {
    "RAY_JEMALLOC_LIB_PATH": str(Path(find_spec("ray").origin).with_name("core") / "libjemalloc.so"),
    "RAY_JEMALLOC_CONF": "dirty_decay_ms:0,muzzy_decay_ms:0",
    "RAY_JEMALLOC_PROFILE": "raylet",
}
"""For `ray start`: its node process returns memory at once that it no longer uses."""
ROOMS = (
    "ip",
    "netns",
    "exec",
    "anyfold",
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
)


class Means(ClassifierMixin, BaseEstimator):
    """Looks at every number of its data."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def fit(self, X, y):
        time.sleep(self.seconds)
        self.classes_ = np.unique(y)
        self.mean_ = X.mean()
        self.machine_ = str(Path("/proc/self/ns/net").readlink())
        return self

    def predict(self, X):
        return self.classes_[(X.mean(axis=1) > self.mean_).astype(int)]


def memory(process):
    """Return the proportional memory, in bytes, of a process and what it has started, by name.

    For this process, which has started the machines, its own alone.
    """
    found = {}
    started = [] if process.pid == os.getpid() else process.children(recursive=True)
    for each in [process, *started]:
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            rollup = Path(f"/proc/{each.pid}/smaps_rollup").read_text()
            n_bytes = 1024 * int(rollup.partition("\nPss:")[2].split()[0])
            name = " ".join(each.cmdline()[:3])[-40:]
            found[name] = found.get(name, 0) + n_bytes
    return found


class Peaks(threading.Thread):
    """Watches the memory of machines, ten times a second."""

    def __init__(self, machines):
        super().__init__(daemon=True)
        self.machines = machines
        self.before = {name: memory(process) for name, process in machines.items()}
        self.peaks = dict(self.before)
        self._over = threading.Event()
        self.start()

    def run(self):
        while not self._over.wait(0.1):
            for name, process in self.machines.items():
                self.peaks[name] = max(self.peaks[name], memory(process), key=lambda m: sum(m.values()))

    def grown(self):
        self._over.set()
        self.join()
        return {name: (self._grown(name), self._most(name)) for name in self.machines}

    def _grown(self, name):
        return sum(self.peaks[name].values()) - sum(self.before[name].values())

    def _most(self, name):
        peak, before = self.peaks[name], self.before[name]
        return sorted(((peak[each] - before.get(each, 0), each) for each in peak), reverse=True)[:3]


@contextlib.contextmanager
def cable():
    """Connect a network of its own with this machine's."""

    def ip(arguments, *, check=True):
        subprocess.run(["ip", *arguments.split()], check=check, stderr=None if check else subprocess.DEVNULL)

    ip("netns add anyfold")
    try:
        ip("link add anyfold0 type veth peer name anyfold1 netns anyfold")
        ip(f"addr add {HERE}/24 dev anyfold0")
        ip("link set anyfold0 up")
        ip(f"-n anyfold addr add {THERE}/24 dev anyfold1")
        ip("-n anyfold link set anyfold1 up")
        ip("-n anyfold link set lo up")
        yield
    finally:
        ip("link del anyfold0", check=False)
        ip("netns del anyfold")


@contextlib.contextmanager
def ray_cluster(folder, store):
    """Start Ray on both machines; the first one's processes are children of this one's `ray start`."""
    ray = Path(sys.executable).with_name("ray")
    head = ["--head", "--port=6399", f"--temp-dir={folder}", "--include-dashboard=false"]
    common = ["--num-cpus=1", f"--object-store-memory={store}", "--disable-usage-stats", "--block"]
    first = start([ray, "start", *head, f"--node-ip-address={HERE}", *common])
    time.sleep(8)
    own = Path(tempfile.mkdtemp(prefix="second-"))
    second = start(
        [ray, "start", f"--address={HERE}:6399", f"--node-ip-address={THERE}", *common], own, folder
    )
    try:
        yield f"{HERE}:6399", first, second
    finally:
        stop(second, first)
        shutil.rmtree(own, ignore_errors=True)


@contextlib.contextmanager
def dask_cluster(folder, store):
    """Start a Dask scheduler and one worker on each machine."""
    dask = Path(sys.executable).with_name("dask")
    scheduler = start([dask, "scheduler", "--host", HERE, "--port", "8799", "--no-dashboard"])
    own = Path(tempfile.mkdtemp(prefix="second-"))
    workers = [
        start(
            [dask, "worker", f"tcp://{HERE}:8799", "--host", host, "--nthreads", "1", "--no-dashboard"],
            *where,
        )
        for host, where in ((HERE, ()), (THERE, (own, folder)))
    ]
    try:
        yield f"tcp://{HERE}:8799", workers[0], workers[1]
    finally:
        stop(*workers, scheduler)
        shutil.rmtree(own, ignore_errors=True)


def start(command, own=None, hidden=None):
    """Start a command, on the second machine where it is given a folder of its own."""
    if own is not None:
        rooms = f'mount -t tmpfs tmpfs /dev/shm && mount --bind {own} {hidden} && cd {own} && exec "$@"'
        command = [*ROOMS, "sh", "-c", rooms, "sh", *command]
    environment = {**os.environ, "TMPDIR": str(own or tempfile.gettempdir())}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [os.environ.get("PYTHONPATH"), str(Path(__file__).parent)])
    )
    return psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def stop(*processes):
    for process in processes:
        for each in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


def run(engine, address, first, second, n_bytes):
    """Run 40 tasks over an array and say what that took."""
    rng = np.random.default_rng(0)
    X = rng.random((n_bytes // 800, 100))
    y = rng.integers(0, 2, len(X))
    models = {f"means{i}": Means() for i in range(N_MODELS)}
    with af.get_executor(engine, address=address) as executor:
        assert executor.max_workers == 2
        first_contact = {"slow": Means(0.5), "slow too": Means(0.5)}  # so that both machines take part
        af.run_cv(first_contact, af.Folds(X[:1000], y[:1000], cv=KFold(N_FOLDS)), backend=executor)
        machines = {"first": first, "second": second, "caller": psutil.Process()}
        sent = int((CABLE / "tx_bytes").read_text())
        peaks = Peaks(machines)
        began = time.perf_counter()
        result = af.run_cv(models, af.Folds(X, y, cv=KFold(N_FOLDS)), backend=executor, return_estimator=True)
        seconds = time.perf_counter() - began
        grown = peaks.grown()
        sent = int((CABLE / "tx_bytes").read_text()) - sent
    here = str(Path("/proc/self/ns/net").readlink())
    ran_here = sum(model.machine_ == here for name in models for model in result.estimators(name))
    splits = N_FOLDS * len(X) * 8
    published = X.nbytes + y.nbytes + splits
    mb = 1e6
    print(
        f"{engine}: {N_MODELS * N_FOLDS} tasks over {X.nbytes / mb:.0f} MB in {seconds:.1f} s, "
        f"{ran_here} of them on the first machine"
    )
    print(f"  to the second machine: {sent / mb:.0f} MB, {sent / published:.3f} of array, target and splits")
    for name, (grew, most) in grown.items():
        print(f"  memory (PSS) of the {name}, above what it was: {grew / mb:.0f} MB")
        print("".join(f"    {more / mb:6.0f} MB {process}\n" for more, process in most), end="")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("engine", choices=["ray", "dask"])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--give-back", action="store_true", help="Ray returns memory that it no longer uses")
    arguments = parser.parse_args()
    n_bytes = arguments.megabytes * 1_000_000
    os.environ["RAY_AUTH_MODE"] = "disabled"  # nobody else is on the cable
    if arguments.give_back:
        os.environ.update(GIVES_BACK)
    clusters = {"ray": ray_cluster, "dask": dask_cluster}
    with tempfile.TemporaryDirectory(prefix="r") as folder, cable():
        with clusters[arguments.engine](folder, 3 * n_bytes) as (address, first, second):
            wait_for_two(arguments.engine, address)
            run(arguments.engine, address, first, second, n_bytes)


def wait_for_two(engine, address):
    """Return when both machines have joined."""
    if engine == "dask":
        from distributed import Client

        with Client(address, set_as_default=False, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
        return
    import ray

    ray.init(address, log_to_driver=False)
    deadline = time.monotonic() + 60
    while len([node for node in ray.nodes() if node["Alive"]]) < 2 and time.monotonic() < deadline:
        time.sleep(0.5)
    ray.shutdown()


if __name__ == "__main__":
    main()
