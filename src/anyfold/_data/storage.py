"""Where the bytes of a published object are put, so that they are private and cannot outlive the owner.

1. In shared memory (memfd, sealed against writing) when they take at most half of what is available.
2. Otherwise in a file without a name in the folder for temporary files (O_TMPFILE, or a file whose
   name is removed before anything is written to it).
3. Where files cannot be reached through ``/proc``: in a named file inside a folder of mode 0700.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from anyfold._data.memory import available_memory, format_bytes
from anyfold.errors import InvalidSettingError

__all__ = ["MEMORY_SHARE", "Stored", "Storing", "store"]

MEMORY_SHARE = 0.5
"""Share of the available memory that one object may take; a larger one goes to a file."""

SMALL = 1 << 16
"""Bytes that fit wherever there is a process."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM})
MFD_NOEXEC_SEAL = 0x0008  # Linux 6.3; unknown to the os module of Python 3.11
WRITE_AT_ONCE = 1 << 30  # bytes; Linux writes at most 2 GiB at once
MOVED_AT_ONCE = 1 << 24  # bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that is written and can only be read from now on."""

    descriptor: int
    path: str | None
    """None for a file without a name."""

    def discard(self) -> None:
        """Give the file up; its bytes go when its last reader does."""
        with suppress(OSError):
            os.close(self.descriptor)
        _remove(self.path)


class Storing:
    """A file that is being written, in pieces and in any order; discarded unless it is finished.

    Parameters
    ----------
    nbytes : int
        Size of the file.
    temp_dir : str or None
        Folder for what does not fit into memory; None for the system's.

    Raises
    ------
    InvalidSettingError
        If the folder is needed and cannot be used, or has no room; also by `write`.
    """

    def __init__(self, nbytes: int, temp_dir: str | None = None) -> None:
        self._nbytes = nbytes
        self._temp_dir = temp_dir
        fits = nbytes <= SMALL or nbytes <= MEMORY_SHARE * available_memory()
        self._in_memory = hasattr(os, "memfd_create") and fits
        if self._in_memory:
            try:
                self._open(_open_memory)
            except OSError as error:
                if error.errno not in NO_ROOM | {errno.ENOSYS, errno.EPERM, errno.EACCES}:
                    raise
                self._in_memory = False
        if not self._in_memory:
            with self._explained():
                self._open(lambda: _open_in(self._folder))

    def write(self, offset: int, piece: memoryview) -> None:
        """Write some bytes of the file."""
        if self._in_memory:
            try:
                _write(self._descriptor, offset, piece)
                return
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
            with self._explained():
                self._move_to_folder()
        with self._explained():
            _write(self._descriptor, offset, piece)

    def finish(self) -> Stored:
        """Make the file read-only."""
        os.fchmod(self._descriptor, 0o400)
        _seal(self._descriptor)
        reading = os.open(self._path or f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        self.discard.detach()
        os.close(self._descriptor)
        return Stored(reading, self._path)

    def _open(self, open_new: Callable[[], tuple[int, str | None]]) -> None:
        self._descriptor, self._path = open_new()
        self.discard = weakref.finalize(self, Stored(self._descriptor, self._path).discard)
        """Gives the file up."""
        try:
            os.ftruncate(self._descriptor, self._nbytes)
        except BaseException:
            self.discard()
            raise

    def _move_to_folder(self) -> None:
        memory, discard_memory = self._descriptor, self.discard
        try:
            self._open(lambda: _open_in(self._folder))
            self._in_memory = False
            for start in range(0, self._nbytes, MOVED_AT_ONCE):
                _write(self._descriptor, start, memoryview(os.pread(memory, MOVED_AT_ONCE, start)))
        finally:
            discard_memory()

    @property
    def _folder(self) -> str:
        return self._temp_dir or tempfile.gettempdir()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidSettingError(_explain(error, self._folder, self._nbytes)) from error


def store(parts: Iterable[tuple[int, memoryview]], nbytes: int, temp_dir: str | None) -> Stored:
    """Write a file once and make it read-only.

    Parameters
    ----------
    parts : iterable of (int, memoryview)
        Offsets in bytes and what goes there.
    nbytes : int
        Size of the file.
    temp_dir : str or None
        Folder for what does not fit into memory; None for the system's.

    Raises
    ------
    InvalidSettingError
        If the folder cannot be used, or has no room.
    """
    storing = Storing(nbytes, temp_dir)
    try:
        for offset, part in parts:
            storing.write(offset, part)
        return storing.finish()
    except BaseException:
        storing.discard()
        raise


def _write(descriptor: int, offset: int, part: memoryview) -> None:
    while part:
        written = os.pwrite(descriptor, part[:WRITE_AT_ONCE], offset)
        part, offset = part[written:], offset + written


def _open_memory() -> tuple[int, str | None]:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create("anyfold", flags | MFD_NOEXEC_SEAL)
    except OSError:
        descriptor = os.memfd_create("anyfold", flags)
    os.fchmod(descriptor, 0o600)
    return descriptor, None


def _open_in(folder: str) -> tuple[int, str | None]:
    if not _has_proc():
        private = tempfile.mkdtemp(prefix="anyfold-", dir=folder)
        path = str(Path(private) / "shared")
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path
    with suppress(AttributeError, OSError):
        return os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600), None
    descriptor, path = tempfile.mkstemp(prefix="anyfold-", dir=folder)
    Path(path).unlink()
    return descriptor, None


def _has_proc() -> bool:
    return Path("/proc/self/fd").is_dir()


def _seal(descriptor: int) -> None:
    try:
        import fcntl

        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except (ImportError, AttributeError, OSError):
        pass  # a file in a folder; it is reopened for reading only


def _remove(path: str | None) -> None:
    if path is not None:
        shutil.rmtree(Path(path).parent, ignore_errors=True)


def _explain(error: OSError, folder: str, nbytes: int) -> str:
    problem = f"cannot share {format_bytes(nbytes)} of data through a file in {folder!r}: "
    if error.errno in NO_ROOM:
        with suppress(OSError):
            problem += f"{format_bytes(shutil.disk_usage(folder).free)} are free there, "
    return (
        f"{problem}{error.strerror}; shared memory takes objects of up to half of what is available "
        f"({format_bytes(available_memory())}): set ANYFOLD_TEMP_DIR to a writable folder with enough room"
    )
