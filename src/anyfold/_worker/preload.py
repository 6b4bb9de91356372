"""Imported by the fork server, once, so that the workers it forks need not import the same again."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from functools import partial
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from anyfold._worker.boot import signal_at_parents_end, warm_imports

__all__: list[str] = []

_caller = os.getppid()


def _end_orphaned(*_: object) -> None:
    _remove_socket()
    os._exit(0)


def _end() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.getppid() != _caller:
        _remove_socket()


def _remove_socket() -> None:
    """Remove what the caller would have removed with its temporary folder, had it not been killed."""
    server: Any = forkserver
    address = server._forkserver._forkserver_address
    if isinstance(address, str) and address.startswith("/"):
        with contextlib.suppress(OSError):
            Path(address).unlink()
        with contextlib.suppress(OSError):
            Path(address).parent.rmdir()


# All this concerns the server, not what it forks: a worker ends without running what is left for the exit.
signal.signal(signal.SIGTERM, _end_orphaned)
os.register_at_fork(after_in_child=partial(signal.signal, signal.SIGTERM, signal.SIG_DFL))
signal_at_parents_end(signal.SIGTERM)
atexit.register(_end)

# The server was started with ``python -c``, whose sys.path begins with the working directory. That of the
# caller may not: a file there must not stand in for an installed package.
if sys.path[:1] == [""]:
    del sys.path[0]
warm_imports()
