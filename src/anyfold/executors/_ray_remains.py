"""Ends what a local Ray has left behind, and removes its folder; also a program, which imports nothing else.

Ray's own processes end with their caller, some of them a minute later: they try to tell a server that has
gone that they are about to.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

__all__ = ["MARK", "clear_away"]

MARK = "_ANYFOLD_RAY"
"""The environment variable by which the processes of an instance are known: its value is their folder."""


def clear_away(folder: str) -> None:
    """End the processes of the instance that keeps its files in a folder, and remove that."""
    while processes := [process for process in Path("/proc").glob("[0-9]*") if _is_of(folder, process)]:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def _is_of(folder: str, process: Path) -> bool:
    if process.name == str(os.getpid()):
        return False
    try:
        if f"{MARK}={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
            return True
        # Those that change their name write it over their environment; they keep their logs open.
        is_renamed = (process / "cmdline").read_bytes().startswith(b"ray::")
        return is_renamed and any(_is_below(folder, file) for file in (process / "fd").iterdir())
    except OSError:
        return False  # it has just ended, or is somebody else's


def _is_below(folder: str, file: Path) -> bool:
    with contextlib.suppress(OSError):  # closed meanwhile
        return str(file.readlink()).startswith(f"{folder}/")
    return False


if __name__ == "__main__":
    clear_away(sys.argv[1])
