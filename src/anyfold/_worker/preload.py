"""Imported by the fork server, once, so that the workers it forks need not import the same again."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NoReturn

from anyfold._worker.boot import signal_at_parents_end, warm_imports

__all__: list[str] = []


_caller = os.getppid()
_orphaned = False


def _end(*_: object) -> NoReturn:
    global _orphaned
    _orphaned = True
    sys.exit()


def _remove_socket() -> None:
    # The caller removes it with its temporary folder, unless it was killed.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server: Any = forkserver
    address = server._forkserver._forkserver_address
    if (_orphaned or os.getppid() != _caller) and isinstance(address, str) and address.startswith("/"):
        with contextlib.suppress(OSError):
            Path(address).unlink()
        with contextlib.suppress(OSError):
            Path(address).parent.rmdir()


# This concerns the server itself: what it forks ends without running it.
signal.signal(signal.SIGTERM, _end)
signal_at_parents_end(signal.SIGTERM)
atexit.register(_remove_socket)

# The server was started with ``python -c``, whose sys.path begins with the working directory. That of the
# caller may not: a file there must not stand in for an installed package.
if sys.path[:1] == [""]:
    del sys.path[0]
warm_imports()
