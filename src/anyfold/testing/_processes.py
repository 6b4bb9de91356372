"""What the operating system knows of processes, descriptors and files: seen from outside the executor."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProcessInfo", "children_left", "descendants", "descriptors", "is_alive", "processes_with"]

_PROC = Path("/proc")
_HELPERS = ("resource_tracker", "multiprocessing.forkserver", "multiprocessing.semaphore_tracker")


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process that has not ended."""

    pid: int
    parent: int
    command: str


def descendants(pid: int | None = None) -> list[ProcessInfo]:
    """Return the processes below one, this one by default, that have not ended."""
    table = _table()
    found: list[ProcessInfo] = []
    parents = {os.getpid() if pid is None else pid}
    while parents:
        below = [process for process in table if process.parent in parents]
        found += below
        parents = {process.pid for process in below}
    return found


def children_left(before: set[int]) -> list[ProcessInfo]:
    """Return the processes below this one that were not there before.

    Helpers of the interpreter are not counted, what a fork server has forked is.
    """
    return [
        process
        for process in descendants()
        if process.pid not in before
        and not (process.parent == os.getpid() and any(helper in process.command for helper in _HELPERS))
        and not process.command.startswith("ps ")
    ]


def is_alive(pid: int) -> bool:
    """Return whether a process exists that has not ended."""
    return any(process.pid == pid for process in _table())


def processes_with(variable: str, value: str) -> list[ProcessInfo]:
    """Return the processes that were started with an environment variable, whoever their parent is now."""
    wanted = f"{variable}={value}".encode()
    if not _PROC.is_dir():
        shown = subprocess.run(["ps", "eww", "-axo", "pid=,command="], capture_output=True, check=True).stdout
        pids = {int(line.split()[0]) for line in shown.splitlines() if wanted in line}
        return [process for process in _table() if process.pid in pids]
    found = []
    for process in _table():
        try:
            if wanted in (_PROC / str(process.pid) / "environ").read_bytes().split(b"\0"):
                found.append(process)
        except OSError:
            continue
    return found


def descriptors() -> list[str]:
    """Return what the open descriptors of this process stand for."""
    folder = _PROC / "self/fd" if _PROC.is_dir() else Path("/dev/fd")
    shown = []
    for entry in sorted(folder.iterdir(), key=lambda path: int(path.name)):
        try:
            shown.append(f"{entry.name} -> {entry.readlink()}" if _PROC.is_dir() else entry.name)
        except OSError:
            continue  # the one that read the folder
    return shown


def _table() -> list[ProcessInfo]:
    if not _PROC.is_dir():
        command = ["ps", "-axo", "pid=,ppid=,stat=,command="]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = [line.split(maxsplit=3) for line in shown.splitlines()]
        return [ProcessInfo(int(r[0]), int(r[1]), r[3]) for r in rows if len(r) == 4 and "Z" not in r[2]]
    table = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            command_line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if state not in "ZX":
            table.append(ProcessInfo(int(entry.name), int(parent), command_line.strip()))
    return table
