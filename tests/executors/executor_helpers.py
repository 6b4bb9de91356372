"""Executors under test, tasks that can be watched from outside, and scripts run in processes of their own."""

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import joblib
import psutil

from anyfold.executors import _start, get_executor

PATIENCE = 60  # seconds; a hang, not slowness

STARTED = {
    f"{backend}-{method}": (backend, {"start_method": method})
    for backend in ("multiprocessing", "processes")
    for method in ("forkserver", "spawn", "fork")
}
JOBLIB = {f"joblib-{name}": name for name in ("loky", "multiprocessing", "threading", "sequential")}

OWN_POOL = [name for name in STARTED if name.startswith("multiprocessing")]
HEALING = [*STARTED, "loky", "joblib-loky", "joblib-multiprocessing"]
PROCESSES = HEALING
PARALLEL = [*PROCESSES, "threads", "joblib-threading"]
ALL = [*PARALLEL, "serial", "joblib-sequential"]


def make(name, max_workers=2):
    if name in JOBLIB:
        with joblib.parallel_config(JOBLIB[name]):
            return get_executor("joblib", max_workers)
    backend, options = STARTED.get(name, (name, {}))
    return get_executor(backend, max_workers, **options)


def preload_nothing():
    """Have fork servers import none of what tasks with models need, which takes seconds."""
    del _start._PRELOAD[1:]


def wait_until(condition, what="the condition"):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what() if callable(what) else what}"
        time.sleep(0.005)


def note(folder):
    """Leave a trace of one invocation: a file of its own."""
    path = Path(folder) / f"{os.getpid()}-{time.perf_counter_ns()}"
    path.touch()


def count(folder):
    return len(list(Path(folder).iterdir()))


def hold(started, go):
    """Say that the task runs, and run until it is told to go on."""
    Path(started).write_text(str(os.getpid()))
    wait_until(Path(go).exists, go)
    return os.getpid()


def read_pid(path):
    wait_until(lambda: Path(path).exists() and Path(path).read_text(), path)
    return int(Path(path).read_text())


def alive(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def workers_of(pid=None):
    """Return the ids of the processes below one that are neither trackers nor fork servers."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            command = " ".join(process.cmdline())
            helper = "resource_tracker" in command or "forkserver import main" in command
            # A forked worker has the command line of the fork server, or of this process.
            forked = helper and "forkserver" in command and process.ppid() != (pid or os.getpid())
            if process.status() != psutil.STATUS_ZOMBIE and (forked or not helper):
                found.append(process.pid)
    return found


def wait_until_no_worker_is_left():
    wait_until(
        lambda: not workers_of(), lambda: f"the end of {[psutil.Process(pid) for pid in workers_of()]}"
    )


def write_script(folder, source):
    path = folder / "script.py"
    path.write_text(textwrap.dedent(source))
    return path


def start_script(folder, source, *arguments, **options):
    """Start a script in a process and session of its own."""
    command = [sys.executable, "-W", "error", write_script(folder, source), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def run_script(folder, source, *arguments, **options):
    with start_script(folder, source, *arguments, **options) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err
