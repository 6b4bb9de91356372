"""The file of a journal: what makes it one, and what may be wrong with it.

Nothing here opens the file but SQLite: closing any other descriptor of it would give up the locks that
this process holds.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from anyfold.errors import JournalError

__all__ = [
    "check",
    "connect",
    "create",
    "explained",
    "identity",
    "in_haste",
    "is_in_haste",
    "is_new",
    "patiently",
    "reading",
]

APPLICATION = 0x616E7966  # "anyf", at a fixed place in the header of the file
SCHEMA = 1
"""Version of the tables."""

TABLES = {
    "facts": "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "runs": "CREATE TABLE runs (run INTEGER PRIMARY KEY, started REAL, anyfold TEXT, versions TEXT)",
    "outcomes": (
        "CREATE TABLE outcomes (key BLOB PRIMARY KEY, run INTEGER, recorded REAL, model TEXT, fold INTEGER, "
        "failed INTEGER, fit_time REAL, started REAL, ended REAL, scores TEXT, failure TEXT, warnings TEXT, "
        "said TEXT, place TEXT)"
    ),
}
PATIENCE = 30.0
"""Seconds to wait for another process that is writing."""

LAST_PATIENCE = 0.5
"""The same, when the caller has pressed Ctrl-C and wants control back."""

SMALLEST = 512
"""Bytes of an SQLite file that holds anything."""

REMEDY = "Delete it or name another file; what it held is computed again"

T = TypeVar("T")

_in_haste: ContextVar[bool] = ContextVar("anyfold_in_haste", default=False)


@contextlib.contextmanager
def in_haste() -> Iterator[None]:
    """Wait for other processes only as long as the caller will, who has interrupted the run."""
    token = _in_haste.set(True)
    try:
        yield
    finally:
        _in_haste.reset(token)


def is_in_haste() -> bool:
    """Return whether the run was interrupted."""
    return _in_haste.get()


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[sqlite3.Connection]:
    """Open a journal to read it; its content is not changed, and it is not created."""
    path = Path(path).absolute()
    with explained(path):
        if not path.is_file():
            raise JournalError(f"there is no file {str(path)!r}")
        database = _open_to_read(path)
        try:
            check(database, path)
            yield database
        finally:
            database.close()


def _open_to_read(path: Path) -> sqlite3.Connection:
    # Not mode=ro: such a reader leaves the files of the log behind, which it may not delete.
    database = connect(path, "rw")
    try:
        database.execute("PRAGMA query_only=ON")
        patiently(lambda: _header(database))
    except sqlite3.OperationalError:
        database.close()
        if path.with_name(f"{path.name}-wal").exists():
            raise
        # No log, and none can be made: nobody writes to it here.
        database = connect(path, "ro&immutable=1")
    return database


def create(path: Path) -> None:
    if path.is_dir():
        raise JournalError(f"the journal {str(path)!r} is a folder: name a file in it")
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def connect(path: Path, mode: str) -> sqlite3.Connection:
    if 0 < path.stat().st_size < SMALLEST:
        raise JournalError(_meaning_of(sqlite3.SQLITE_NOTADB, path))  # SQLite would take it as empty
    # Used by one thread at a time, not always the same.
    how: Any = {"timeout": 0, "isolation_level": None, "check_same_thread": False}
    database: sqlite3.Connection = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, **how)
    database.execute("PRAGMA trusted_schema=OFF")  # the file may be anybody's
    database.execute("PRAGMA cell_size_check=ON")
    return database


def is_new(database: sqlite3.Connection) -> bool:
    """Return whether nothing stands in the file yet."""
    application, version, rows = patiently(lambda: _header(database))
    return not (application or version or rows)


def _header(database: sqlite3.Connection) -> tuple[int, int, list[tuple[str, str]]]:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    rows = database.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    return application, version, rows


def check(database: sqlite3.Connection, path: Path, *, thoroughly: bool = True) -> None:
    """Raise unless this is a journal as this version writes it, whole and with nothing added."""
    application, version, rows = patiently(lambda: _header(database))
    if application != APPLICATION:
        raise JournalError(
            f"{str(path)!r} is another program's SQLite file, not a journal: name another "
            "file. Nothing was changed"
        )
    if version > SCHEMA:
        raise JournalError(
            f"the journal {str(path)!r} was written by a newer anyfold (format {version}; this one reads up "
            f"to {SCHEMA}): upgrade anyfold, or name another file"
        )
    if version != SCHEMA or dict(rows) != TABLES:
        raise JournalError(
            f"{str(path)!r} says that it is a journal, but its tables are not those of one. {REMEDY}"
        )
    if thoroughly:
        (verdict,) = patiently(lambda: database.execute("PRAGMA quick_check(1)").fetchone())
        if verdict != "ok":
            raise JournalError(f"the journal {str(path)!r} is damaged ({verdict}). {REMEDY}")


def patiently(act: Callable[[], T]) -> T:
    """Do something on a file that another process may be writing to; unlike SQLite's wait, Ctrl-C ends it."""
    deadline = time.monotonic() + _patience()
    pause = 0.001
    while True:
        try:
            return act()
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(0.01, 2 * pause)  # who waits longer than others would never have its turn


def _patience() -> float:
    return LAST_PATIENCE if _in_haste.get() else PATIENCE


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the operating system say into what it means for the journal."""
    try:
        yield
    except JournalError:
        raise
    except sqlite3.Error as error:
        raise JournalError(_meaning_of(getattr(error, "sqlite_errorcode", 0), path, str(error))) from error
    except FileNotFoundError as error:
        raise JournalError(
            f"the journal {str(path)!r} cannot be made: there is no such folder, or it is gone"
        ) from error
    except OSError as error:
        raise JournalError(f"the journal {str(path)!r} cannot be used: {error.strerror or error}") from error


def _meaning_of(code: int, path: Path, said: str = "") -> str:
    journal = repr(str(path))
    match code & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            return f"{journal} is not a journal: it is no SQLite file. Name another file. Nothing was changed"
        case sqlite3.SQLITE_CORRUPT:
            return f"the journal {journal} is damaged ({said}). {REMEDY}"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return f"the journal {journal} is read-only: make it writable, or name another file"
        case sqlite3.SQLITE_CANTOPEN:
            return f"the journal {journal} cannot be opened: its folder and it must be readable and writable"
        case sqlite3.SQLITE_FULL | sqlite3.SQLITE_IOERR:
            return f"the journal {journal} cannot be written: the disk is full, or fails ({said})"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"the journal {journal} was locked by another process for {_patience():g} seconds"
    return f"the journal {journal} cannot be used: {said}"
