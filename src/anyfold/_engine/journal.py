"""The journal of finished work: one SQLite file that outlives the process.

    lookup ──> outcomes that are there already ──> not computed again
    record <── outcomes as they finish, all that have arrived in one transaction

A transaction that has been committed survives the death of the process, however it comes, because the
operating system has it; it reaches the disk itself with the next checkpoint, so that a power cut may take
the last few. Several runs may use one file at once. The file holds numbers and texts only: neither
opening nor reading it runs anything that stands in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from anyfold._engine.journal_file import (
    APPLICATION,
    REMEDY,
    SCHEMA,
    TABLES,
    check,
    connect,
    create,
    explained,
    identity,
    is_in_haste,
    is_new,
    patiently,
)
from anyfold._engine.journal_rows import Terms, decode, encode, row_key
from anyfold._plan.content import ContentKey
from anyfold._plan.task import Outcome, TaskKey
from anyfold._version import __version__
from anyfold.errors import JournalError, JournalWarning

__all__ = ["Journal", "Terms"]

COLUMNS = "failed, fit_time, started, ended, scores, failure, warnings, said, place"

AT_ONCE = 400
"""Keys in one query."""

SEEDS = 2**31 - 1
"""How many root seeds there are."""

CHECKPOINT = 4000
"""Pages of the log after which they are moved into the file itself."""

T = TypeVar("T")

_INSERT = (
    f"INSERT OR REPLACE INTO outcomes (key, run, recorded, model, fold, {COLUMNS}) "
    f"VALUES ({','.join('?' * 14)})"
)


class Journal:
    """Finished outcomes in a file, by content.

    Parameters
    ----------
    path : str or path
        Is created, readable by its owner only, if it is not there.
    versions : mapping of str to str
        What this process computes with, for people to read.

    Attributes
    ----------
    root_seed : int
        For runs without a ``random_state``: drawn once when the file is made, so that such a run finds
        its work again.
    stopped : str or None
        Why nothing is recorded any more.

    Raises
    ------
    JournalError
        If the file cannot be written, is damaged, or is no journal that this version can read.
    """

    def __init__(self, path: str | os.PathLike[str], versions: Mapping[str, str] | None = None) -> None:
        self.path = Path(path).absolute()
        self.stopped: str | None = None
        with explained(self.path):
            create(self.path)
            self._database = connect(self.path, "rw")
        try:
            with explained(self.path):
                self._prepare()
                check(self._database, self.path)
                self.root_seed = self._root_seed()
                self._run = self._transaction(lambda: self._begin_run(versions or {}))
                self._file = identity(self.path)
        except BaseException:
            self._database.close()
            raise

    def lookup(self, keys: Mapping[TaskKey, ContentKey], terms: Terms) -> dict[TaskKey, Outcome]:
        """Return the outcomes that are there already.

        Parameters
        ----------
        keys : mapping of TaskKey to ContentKey
            What is to be done; tasks without a digest are never found.
        terms : Terms
            What is wanted of each outcome. Where that is not kept, nothing is found.

        Returns
        -------
        dict of TaskKey to Outcome
            Without a place, since they were not computed in this run.
        """
        if not terms.takes:
            return {}
        wanted: dict[bytes, list[TaskKey]] = {}
        for task, content in keys.items():
            if content.digest is not None:
                for key in (row_key(content.digest), row_key(content.digest, terms)):
                    wanted.setdefault(key, []).append(task)
        found: dict[TaskKey, Outcome] = {}
        with explained(self.path):
            for key, columns in self._rows(list(wanted)):
                for task in wanted[key]:
                    outcome = decode(task, columns, terms)
                    if outcome is not None:
                        found[task] = outcome
        return {task: found[task] for task in keys if task in found}

    def record(self, finished: Iterable[tuple[ContentKey, Outcome]], terms: Terms) -> None:
        """Write outcomes down; when this returns they survive the death of the process.

        What cannot be used again is left out: see `encode`. When the file can no longer be written, one
        `JournalWarning` is issued, `stopped` says why, and nothing more is recorded.
        """
        if self.stopped is not None:
            return
        rows = []
        for content, outcome in finished:
            if content.digest is None or (encoded := encode(outcome, terms)) is None:
                continue
            columns, depends = encoded
            key = row_key(content.digest, terms if depends else None)
            rows.append((key, self._run, time.time(), content.model, outcome.key.fold, *columns))
        if not rows:
            return
        try:
            with explained(self.path):
                if identity(self.path) != self._file:
                    raise JournalError(f"the journal {str(self.path)!r} was moved, replaced or deleted")
                self._transaction(lambda: self._database.executemany(_INSERT, rows))
        except JournalError as error:
            self._stop(error, len(rows))

    def close(self) -> None:
        """Let go of the file; everything in it is moved to where a power cut cannot reach it."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        self.close()

    # ---- inside -------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Make the tables if the file is new, and switch to write-ahead logging."""
        if is_new(self._database):
            self._transaction(self._make_tables)
        check(self._database, self.path, thoroughly=False)  # before anything of another's is changed
        mode = patiently(lambda: self._database.execute("PRAGMA journal_mode=WAL").fetchone()[0])
        if mode != "wal":
            raise JournalError(
                f"the journal {str(self.path)!r} is on a file system without write-ahead logging (SQLite "
                f"chose {mode!r}), such as a network drive: put it on a local disk"
            )
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT}")

    def _make_tables(self) -> None:
        if not is_new(self._database):
            return  # another process was faster
        for statement in TABLES.values():
            self._database.execute(statement)
        seed = secrets.randbelow(SEEDS)
        self._database.execute("INSERT INTO facts VALUES ('root_seed', ?)", (str(seed),))
        self._database.execute(f"PRAGMA application_id={APPLICATION}")
        self._database.execute(f"PRAGMA user_version={SCHEMA}")

    def _begin_run(self, versions: Mapping[str, str]) -> int:
        cursor = self._database.execute(
            "INSERT INTO runs (started, anyfold, versions) VALUES (?, ?, ?)",
            (time.time(), __version__, json.dumps(dict(versions))),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _root_seed(self) -> int:
        row = self._database.execute("SELECT value FROM facts WHERE name = 'root_seed'").fetchone()
        told = "" if row is None else str(row[0])
        if not (told.isdecimal() and len(told) <= len(str(SEEDS)) and int(told) < SEEDS):
            raise JournalError(f"the journal {str(self.path)!r} is damaged: it has no root_seed. {REMEDY}")
        return int(told)

    def _rows(self, keys: list[bytes]) -> Iterator[tuple[bytes, Any]]:
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, {COLUMNS} FROM outcomes WHERE key IN ({marks})"
            for key, *columns in patiently(partial(self._fetch, query, some)):
                yield key, tuple(columns)

    def _fetch(self, query: str, values: list[bytes]) -> list[Any]:
        return self._database.execute(query, values).fetchall()

    def _transaction(self, work: Callable[[], T]) -> T:
        try:
            patiently(lambda: self._database.execute("BEGIN IMMEDIATE"))  # inside: Ctrl-C may follow at once
            result = work()
            patiently(lambda: self._database.execute("COMMIT"))  # of a new file: readers are in the way
        except BaseException:
            if self._database.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
            raise
        return result

    def _stop(self, error: JournalError, n_lost: int) -> None:
        self.stopped = str(error)
        what = "The run goes on without a record of what it finishes from here on"
        if is_in_haste():
            what = f"Of the interrupted run the last outcomes, {n_lost} in number, are not on record"
        # Where the caller turns warnings into errors, this one must not cost the run.
        with contextlib.suppress(JournalWarning):
            warnings.warn(f"{error}. {what}", JournalWarning, stacklevel=3)
        self.close()
