"""The stack in which a leaf hung, where its worker cannot reach the caller: a file on the worker's host.

watchdog ──stack──> FOLDER/anyfold-hung-TOKEN-UNIT-PID ──what the executor runs there──> caller
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["EvidenceAddress", "collect_evidence", "forget_evidence"]

_NAME = "anyfold-hung-{token}-{unit}-{pid}"


@dataclass(frozen=True, slots=True)
class EvidenceAddress:
    """No mailbox; a worker can only leave a stack."""

    token: str
    folder: Callable[[], str]
    """Names the folder on the host where it is called."""

    @contextlib.contextmanager
    def channel(self, unit: int) -> Iterator[int | None]:
        """Open the file of a unit; it is there as long as the block takes, and if the process ends in it.

        None where it cannot be made.
        """
        path = Path(self.folder(), _NAME.format(token=self.token, unit=unit, pid=os.getpid()))
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except OSError:
            yield None
            return
        try:
            yield file
        finally:
            os.close(file)
            path.unlink(missing_ok=True)


def collect_evidence(folder: str, token: str, unit: int) -> str:
    """Return the stack that the worker of a unit has left in a folder, and remove it; nothing if none has."""
    stacks = []
    for path in Path(folder).glob(_NAME.format(token=token, unit=unit, pid="*")):
        with contextlib.suppress(OSError):
            stacks.append(path.read_text(errors="replace"))
            path.unlink()
    return "".join(stacks)


def forget_evidence(folder: str, pid: int) -> None:
    """Remove what a process that was ended for another reason has left in a folder."""
    for path in Path(folder).glob(_NAME.format(token="*", unit="*", pid=pid)):
        with contextlib.suppress(OSError):
            path.unlink()
