"""Scripts that run in a process of their own, with the executor under test, watched from outside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle

from anyfold.testing._limits import wait_until_gone
from anyfold.testing._processes import processes_with

__all__ = ["Driver", "Ended", "driver", "run_driver"]

MARK = "ANYFOLD_CONTRACT_DRIVER"
"""Environment variable by which everything that a driver started is known, whoever its parent is."""

PRELUDE = """\
import sys
sys.path[:] = {path!r}
import pickle
with open({factory!r}, "rb") as file:
    make_executor = pickle.load(file)
"""


@dataclass(frozen=True, slots=True)
class Driver:
    """A script that runs."""

    process: subprocess.Popen[str]
    temp: Path
    mark: str

    def left_over(self) -> list[str]:
        """Return what the driver has left: processes and files."""
        processes = [f"process {p.pid}: {p.command[:100]}" for p in processes_with(MARK, self.mark)]
        return processes + [f"file {path}" for path in sorted(_below(self.temp))]


@contextlib.contextmanager
def driver(subject: Any, source: str) -> Iterator[Driver]:
    """Start a script in which ``make_executor`` is the factory of the executor under test.

    It has a folder for temporary files of its own. At the end nothing of it runs.
    """
    folder = subject.new_folder(f"driver-{uuid.uuid4().hex[:8]}")
    temp = folder / "temp"
    temp.mkdir()
    factory = folder / "factory"
    factory.write_bytes(_pickled(subject))
    script = folder / "script.py"
    script.write_text(PRELUDE.format(path=sys.path, factory=str(factory)) + source)
    mark = uuid.uuid4().hex
    environment = dict(os.environ, TMPDIR=str(temp), **{MARK: mark})
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Driver(process, temp, mark)
    finally:
        for left in (process.pid, *(p.pid for p in processes_with(MARK, mark))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, 9)
        process.communicate()


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a script: what it printed, how it ended, and what of it was still there then."""

    out: str
    err: str
    status: int
    left_over: tuple[str, ...]


def run_driver(subject: Any, source: str, seconds: float) -> Ended:
    """Run a script to its end, and wait for the end of what it had started."""
    with driver(subject, source) as running:
        out, err = running.process.communicate(timeout=seconds)
        with contextlib.suppress(AssertionError):
            wait_until_gone(running.left_over, "a script")
        return Ended(out, err, running.process.returncode, tuple(running.left_over()))


def _pickled(subject: Any) -> bytes:
    cls = type(subject)
    module = sys.modules.get(cls.__module__)
    # The module of a test need not be importable elsewhere.
    by_value = module is not None and cls.__module__.partition(".")[0] not in ("anyfold", "__main__")
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(partial(_make, cls)))
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)


def _make(cls: type, max_workers: int) -> Any:
    return cls().make_executor(max_workers)


def _below(folder: Path) -> list[str]:
    """Return what lies below a folder, some of which may vanish while this looks."""
    return [
        str(Path(place, name)) for place, folders, files in os.walk(folder) for name in (*folders, *files)
    ]
