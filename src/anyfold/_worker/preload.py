"""Imported by the fork server first: it ends with its caller, and leaves nothing behind."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

from anyfold._worker.boot import has_ended, signal_at_parents_end

__all__: list[str] = []

_server = os.getpid()
_caller = os.getppid()


def _end_orphaned(*_: object) -> None:
    if os.getpid() == _server:
        _end(patience=1.0)
        os._exit(0)
    # A worker that is so young that it still has the handler of the server.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def _end(patience: float = 0.0) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The signal comes when one thread of the caller has ended, a moment before the caller has; or from
    # somebody else, and then the caller goes on.
    if has_ended(_caller, patience):
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


signal.signal(signal.SIGTERM, _end_orphaned)
signal_at_parents_end(signal.SIGTERM)
atexit.register(_end)  # not run by workers, which leave without it

# The server was started with ``python -c``, whose sys.path begins with the working directory. That of the
# caller may not: a file there must not stand in for an installed package.
if sys.path[:1] == [""]:
    del sys.path[0]
