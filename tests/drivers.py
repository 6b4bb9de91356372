"""Programs that use anyfold, in a session of their own, and a look from outside at what they leave."""

import contextlib
import ipaddress
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psutil

PATIENCE = 60
"""Seconds after which something that is waited for will never happen."""

PRELUDE = """
    import os, sys, time
    from pathlib import Path
    from sklearn.base import BaseEstimator
    from sklearn.datasets import load_iris
    import anyfold as af

    MARKS = Path(os.environ["MARKS"])
    (MARKS / f"ran-{os.getpid()}").touch()
    BACKEND = sys.argv[1]
    X, y = load_iris(return_X_y=True)

    class Quick(BaseEstimator):
        def fit(self, X, y):
            (MARKS / f"worker-{os.getpid()}").touch()
            return self
        def score(self, X, y):
            return 0.5

    class Hangs(Quick):
        def __init__(self, mark="hangs"):
            self.mark = mark
        def fit(self, X, y):
            (MARKS / f"worker-{os.getpid()}").touch()
            (MARKS / f"{self.mark}-{os.getpid()}").touch()
            while True:
                time.sleep(3600)
"""


class Driver:
    """A program without a main guard that runs on one backend.

    Parameters
    ----------
    folder : Path
        For the program, its marks and its temporary files.
    backend : str
        The program's first argument.
    source : str
        What follows the prelude.
    """

    def __init__(self, folder, backend, source):
        self.marks = folder / "marks"
        self.marks.mkdir()
        # Not below the test's folder: the path of a socket has at most 107 characters.
        self._temp = tempfile.TemporaryDirectory(prefix="driver-")
        self.temp = Path(self._temp.name)
        self._before = set(_shared_memory())
        self._mapped = set()
        program = folder / "program.py"
        program.write_text(textwrap.dedent(PRELUDE) + textwrap.dedent(source))
        self.process = subprocess.Popen(
            [sys.executable, program, backend],
            env=dict(os.environ, MARKS=str(self.marks), TMPDIR=str(self.temp), PYTHONWARNINGS="error"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=folder,
        )
        self.pid = self.process.pid

    def wait_for(self, pattern, n=1):
        """Wait for so many marks."""
        eventually(
            lambda: self.process.poll() is not None or len(list(self.marks.glob(pattern))) >= n, pattern
        )
        assert self.process.poll() is None, self.process.communicate()
        self.look_at_shared_memory()

    def look_at_shared_memory(self):
        """Remember what the driver has mapped: such names say nothing about their owner."""
        maps = Path(f"/proc/{self.pid}/maps").read_text()
        self._mapped |= {Path(name) for name in re.findall(r"/dev/shm/\S+", maps)}

    def end(self):
        """Wait for the end and return exit code, output and errors."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err

    def workers(self, pattern="worker-*"):
        return [int(mark.name.rpartition("-")[2]) for mark in self.marks.glob(pattern)]

    def hear_interrupts(self):
        """Return the processes of the session that Ctrl-C does something to."""
        return [pid for pid in _session(self.pid) if not _is_deaf_to(signal.SIGINT, pid)]

    def open_to_others(self):
        """Return what other users or other hosts could reach of what runs and lies about."""
        reachable = listening_to_other_hosts({*self.workers(), *_session(self.pid)})
        return [*reachable, *(path for path in self.temp.iterdir() if path.stat().st_mode & 0o077)]

    def check_that_nothing_is_left(self):
        assert [path.name for path in self.marks.glob("ran-*")] == [f"ran-{self.pid}"]
        eventually(lambda: not self.left(), lambda: f"left are {self.left()}")

    def left(self):
        """Return what there is that the driver has started or made."""
        processes = [pid for pid in {*self.workers(), *_session(self.pid)} if alive(pid)]
        ours = {str(self.pid), *map(str, self.workers())}
        shared = [
            path
            for path in set(_shared_memory()) - self._before
            if path in self._mapped or ours & set(re.findall(r"\d+", path.name))
        ]
        return [*processes, *shared, *_below(self.temp)]

    def kill(self):
        """End whatever still runs."""
        for pid in _session(self.pid):
            os.kill(pid, 9)
        self.process.communicate()
        self._temp.cleanup()


def _below(folder):
    """Return what lies below a folder, some of which may vanish while this looks."""
    return [Path(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files)]


def listening_to_other_hosts(pids):
    """Return the addresses on which processes take connections from elsewhere."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [c.laddr for c in psutil.Process(pid).net_connections("inet") if c.status == "LISTEN"]
    return [address for address in found if not _is_loopback(address.ip)]


def _is_loopback(ip):
    return ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback


def alive(pid):
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def eventually(condition, complaint="", seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, complaint() if callable(complaint) else complaint
        time.sleep(0.01)


def _session(pid):
    """Return the processes of a session that live."""
    members = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, _, _, session = _stat(folder.name)[:4]
            except OSError:
                continue
            if int(session) == pid and state != "Z":
                members.append(int(folder.name))
    return members


def _is_deaf_to(number, pid):
    status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool((int(status["SigBlk"], 16) | int(status["SigIgn"], 16)) >> (number - 1) & 1)


def _stat(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _shared_memory():
    return Path("/dev/shm").iterdir()
