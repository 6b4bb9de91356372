"""What may be wrong with the file: said before work starts, and harmless to a run that has begun."""

import contextlib
import json
import os
import pickle
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from tests.journal.conftest import NAN, content, outcome

import anyfold as af
from anyfold._engine import journal_file
from anyfold._engine.journal import Journal
from anyfold._engine.journal_file import reading
from anyfold._plan.task import TaskKey
from anyfold.errors import AnyfoldError, JournalError, JournalWarning
from anyfold.events import TaskFinished

ROOT = Path(__file__).resolve().parents[2]


def filled(path, n=300):
    with Journal(path) as journal:
        journal.record([(content(k), outcome(k)) for k in range(n)], NAN)
    return path


def look_up(path, n=1):
    with Journal(path) as journal:
        return journal.lookup({TaskKey("m", 0, k): content(k) for k in range(n)}, NAN)


def both_refuse(path, match):
    """Neither a run nor the command opens the file, and neither changes it."""
    before = path.read_bytes() if path.is_file() else None
    for open_it in (Journal, lambda path: reading(path).__enter__()):
        with pytest.raises(JournalError, match=match):
            open_it(path)
    assert before is None or path.read_bytes() == before


# Not a journal


def test_the_error_is_one_that_callers_would_catch():
    error = pickle.loads(pickle.dumps(JournalError("text")))
    assert isinstance(error, AnyfoldError) and isinstance(error, OSError)
    assert str(error) == "text"


@pytest.mark.parametrize(
    "data", [b"model,score\nrf,0.9\n" * 100, b"x", b"y" * 511, os.urandom(5000), b"SQLite format 3\0"]
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(path, data):
    path.write_bytes(data)
    both_refuse(path, "is not a journal|is damaged")


def test_another_programs_database_is_refused_and_left_alone(path):
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE outcomes (key BLOB)")
    other.close()
    both_refuse(path, "another program's SQLite file")


def test_a_database_with_a_number_of_its_own_is_refused_though_it_is_empty(path):
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA application_id=12345")
    other.close()
    both_refuse(path, "another program's SQLite file")


def test_a_journal_of_a_newer_version_is_refused_with_what_to_do(path):
    filled(path)
    changed(path, "PRAGMA user_version=2")
    both_refuse(path, r"newer anyfold \(format 2; this one reads up to 1\): upgrade anyfold")


def test_an_empty_file_becomes_a_journal(path):
    path.touch()
    filled(path)
    assert len(look_up(path, 10)) == 10


def test_a_folder_and_a_missing_folder_are_refused(tmp_path):
    both_refuse(tmp_path, "is a folder|there is no file")
    with pytest.raises(JournalError, match="no such folder"):
        Journal(tmp_path / "missing" / "runs.sqlite")


def changed(path, *statements):
    database = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        database.execute(statement)
    database.close()


# Damaged


def test_a_torn_journal_is_refused_before_work_starts(path):
    filled(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    both_refuse(path, "is damaged")


def test_a_journal_with_overwritten_pages_is_refused_before_work_starts(path):
    filled(path, 2000)
    data = bytearray(path.read_bytes())
    data[8 * 4096 : 9 * 4096] = b"\xff" * 4096
    path.write_bytes(data)
    both_refuse(path, "is damaged")


def test_a_log_torn_in_its_last_transaction_costs_only_that_one(path, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    with Journal(path) as journal:
        for n in range(50):
            journal.record([(content(n), outcome(n))], NAN)
        for part in path.parent.glob("runs.sqlite*"):
            shutil.copy(part, copy)
    log = copy / "runs.sqlite-wal"
    (copy / "runs.sqlite-shm").unlink()
    log.write_bytes(log.read_bytes()[:-100])
    assert len(look_up(copy / "runs.sqlite", 50)) == 49


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE outcomes SET scores = '{'",
        "UPDATE outcomes SET scores = '[]'",
        "UPDATE outcomes SET scores = NULL",
        "UPDATE outcomes SET scores = x'80056363'",
        "UPDATE outcomes SET scores = replace(scores, '0x1', 'zz')",
        """UPDATE outcomes SET scores = '{"test": [["a", [1]]], "train": null, "fit_time": "0x0p+0"}'""",
        "UPDATE outcomes SET warnings = '[[1, 2, 3, 4, 5]]'",
        "UPDATE outcomes SET warnings = '" + "[" * 100_000 + "'",
        "UPDATE outcomes SET started = 'yesterday'",
        """UPDATE outcomes SET failure = '{"stage": "worker"}'""",
        "UPDATE outcomes SET scores = replace(scores, '0x1', '0x1p99999')",
        f"UPDATE outcomes SET scores = replace(scores, '\"0x1.0000000000000p-1\"', '1{'0' * 400}')",
        f'UPDATE outcomes SET warnings = \'[["builtins", "UserWarning", "m", "f", 1{"0" * 20}]]\'',
        """UPDATE outcomes SET warnings = '[["builtins", "UserWarning", "m", "f", -1]]'""",
        """UPDATE outcomes SET warnings = '[["builtins", "UserWarning", "m", "/dev/zero", 1]]'""",
    ],
    ids=lambda statement: statement[20:60],
)
def test_a_row_that_is_not_as_it_should_be_is_computed_again_and_replaced(path, statement):
    filled(path, 1)
    changed(path, statement)
    assert look_up(path) == {}
    filled(path, 1)
    assert len(look_up(path)) == 1


@pytest.mark.parametrize("value", ["-5", "x", "9" * 11, "9" * 5000, "2147483647"])
def test_a_journal_without_a_root_seed_that_can_be_used_is_refused(path, value):
    filled(path, 1)
    changed(path, f"UPDATE facts SET value = '{value}'")
    with pytest.raises(JournalError, match="damaged: it has no root_seed"):
        Journal(path)


# Somebody else's


HOSTILE = [
    "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM outcomes; END",
    "CREATE VIEW v AS SELECT load_extension('evil')",
    "CREATE TABLE more (x)",
    "CREATE INDEX i ON outcomes (abs(fold))",
]


@pytest.mark.parametrize("statement", HOSTILE)
def test_a_journal_with_anything_added_to_its_tables_is_refused(path, statement):
    filled(path)
    changed(path, statement)
    both_refuse(path, "its tables are not those of one")


def test_no_name_in_a_file_is_imported_or_called(path, tmp_path):
    touched = tmp_path / "touched"
    (tmp_path / "evil.py").write_text(f"open({str(touched)!r}, 'w')\nclass Evil(UserWarning): pass\n")
    filled(path, 4)
    evil = json.dumps([["evil", "Evil", "m", "f", 1]])
    failure = {"stage": "fit", "type": "X", "message": f"touch {touched}", "traceback": ""}
    calls = [["os", "system"], ["builtins", "eval"], ["posix", "system"], ["evil", "Evil"], ["numpy", "load"]]
    changed(path, f"UPDATE outcomes SET warnings = '{evil}'")
    script = f"""
        import sys, sqlite3, json
        sys.path.insert(0, {str(tmp_path)!r})
        from anyfold._engine.journal import Journal
        from tests.journal.conftest import NAN, content
        from anyfold._plan.task import TaskKey
        before = set(sys.modules)
        for call in {calls!r}:
            failure = json.dumps({failure!r} | {{"class": call}})
            database = sqlite3.connect({str(path)!r}, isolation_level=None)
            database.execute("UPDATE outcomes SET failure = ?, scores = NULL", (failure,))
            database.close()
            with Journal({str(path)!r}) as journal:
                (found,) = journal.lookup({{TaskKey("m", 0, 0): content(0)}}, NAN).values()
            assert found.failure.exception is None, call
            assert [(w.category, w.message) for w in found.warnings] == [(UserWarning, "Evil: m")]
        assert "evil" not in sys.modules
        from anyfold.__main__ import main
        main(["journal", {str(path)!r}])
    """
    done = run(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert not touched.exists()


def run(script):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=ROOT,
    )


# Read-only, locked, full, gone


READ_ONLY = """
    import os
    from anyfold._engine.journal import Journal
    from anyfold._engine.journal_file import reading
    from anyfold.errors import JournalError

    if os.getuid() == 0:  # who may write anything
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    with reading({path!r}) as database:
        print(database.execute("SELECT count(*) FROM outcomes").fetchone()[0])
    try:
        Journal({path!r})
    except JournalError as error:
        print(error)
"""


@pytest.mark.parametrize("mode", [0o555, 0o777], ids=["folder too", "file only"])
def test_a_read_only_journal_can_be_shown_and_not_written(mode):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = filled(folder / "runs.sqlite", 5)
        path.chmod(0o444)
        folder.chmod(mode)
        done = run(READ_ONLY.format(path=str(path)))
        folder.chmod(0o700)
    assert done.stderr == ""
    count, error = done.stdout.splitlines()
    assert count == "5"
    assert re.search("read-only: make it writable|cannot be opened: its folder and it must be", error)


def test_a_file_that_another_process_keeps_locked_is_an_error_in_the_end(path, monkeypatch):
    filled(path)
    monkeypatch.setattr(journal_file, "PATIENCE", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match=r"was locked by another process for 0\.05 seconds"):
        Journal(path)
    other.close()
    assert len(look_up(path)) == 1


def test_a_lock_that_does_not_end_stops_the_journal_and_not_the_run(path, monkeypatch):
    with Journal(path) as journal:
        monkeypatch.setattr(journal_file, "PATIENCE", 0.05)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.warns(JournalWarning, match="was locked by another process"):
            journal.record([(content(0), outcome())], NAN)
        other.close()
        assert "locked" in journal.stopped


class Quick(BaseEstimator):
    def fit(self, X, y):
        return self

    def score(self, X, y):
        return 1.0


def test_after_ctrl_c_nobody_waits_long_for_a_lock(path, monkeypatch):
    now, waited = 0.0, []

    def sleep(seconds):
        nonlocal now
        waited.append(seconds)
        now += seconds
        if len(waited) == 1:
            raise KeyboardInterrupt

    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:

        def lock(event):
            if isinstance(event, TaskFinished) and not other.in_transaction:
                other.execute("BEGIN IMMEDIATE")

        clock = SimpleNamespace(sleep=sleep, monotonic=lambda: now)
        monkeypatch.setattr(journal_file, "time", clock)
        with (
            pytest.raises(KeyboardInterrupt) as caught,
            pytest.warns(JournalWarning, match=r"for 0\.5 seconds.* the last outcomes, 1 in number, are not"),
        ):
            folds = af.Folds(np.zeros((8, 1)), [0, 1] * 4, cv=4)
            af.run_cv(Quick(), folds, backend="serial", journal=path, callbacks=[lock])
    assert sum(waited) < 1
    result = caught.value.result
    assert "locked by another process" in result.journal.stopped
    assert len(result.missing) == 2  # what finished last counts, though it is not on record


FULL = """
    import resource, sys, warnings
    from anyfold._engine.journal import Journal
    from anyfold._plan.task import TaskKey
    from tests.journal.conftest import NAN, content, outcome
    journal = Journal({path!r})
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    kept = 0
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        for n in range(1000):
            journal.record([(content(n), outcome(n))], NAN)
            kept += journal.stopped is None
    journal.close()
    print(kept, len(issued), issued[0].category.__name__)
    print(journal.stopped)
"""


def test_a_disk_that_fills_up_stops_the_journal_with_one_warning_and_keeps_what_is_there(path):
    done = run(FULL.format(path=str(path)))
    assert done.stderr == ""
    first, stopped = done.stdout.splitlines()
    kept, n_warnings, category = first.split()
    assert (n_warnings, category) == ("1", "JournalWarning")
    assert "the disk is full, or fails" in stopped
    assert 0 < int(kept) < 1000
    assert len(look_up(path, 1000)) >= int(kept)


def test_a_full_disk_is_an_error_before_work_starts(path):
    script = f"""
        import resource
        from anyfold._engine.journal import Journal
        from anyfold.errors import JournalError
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        try:
            Journal({str(path)!r})
        except JournalError as error:
            print(error)
    """
    done = run(script)
    assert done.stderr == ""
    assert "the disk is full, or fails" in done.stdout


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_journal_that_is_taken_away_stops_with_one_warning(path, tmp_path, how):
    with Journal(path) as journal:
        journal.record([(content(0), outcome())], NAN)
        path.unlink()
        if how == "replaced":
            filled(path)
        with pytest.warns(JournalWarning, match="moved, replaced or deleted|or it is gone") as issued:
            for n in range(5):
                journal.record([(content(n), outcome(n))], NAN)
    assert len(issued) == 1


def test_a_caller_who_turns_warnings_into_errors_does_not_lose_the_run(path):
    with Journal(path) as journal:
        path.unlink()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            journal.record([(content(0), outcome())], NAN)
        assert journal.stopped is not None


# Killed


WRITER = """
    import os, sys
    from anyfold._engine.journal import Journal
    from tests.journal.conftest import NAN, content, outcome
    journal = Journal({path!r})
    n = {start}
    while True:
        group = range(n, n + 1 + n % 7)
        journal.record([(content(k), outcome(k)) for k in group], NAN)
        n = group.stop
        os.write(1, b"%d\\n" % n)
"""


def test_a_killed_writer_loses_nothing_that_was_counted(path):
    counted = 0
    for moment in (1, 33, 1000):
        script = textwrap.dedent(WRITER.format(path=str(path), start=counted))
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as writer:
            for _ in range(moment):
                writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
            told = writer.stdout.read().split(b"\n")[:-1]
        counted = int(told[-1]) if told else counted
        found = look_up(path, counted + 20)
        assert len(found) >= counted
        assert {TaskKey("m", 0, n) for n in range(counted)} <= found.keys()
        counted = len(found)


def test_two_processes_that_write_to_one_file_lose_nothing(path):
    script = """
        import sys
        from anyfold._engine.journal import Journal
        from tests.journal.conftest import NAN, content, outcome
        sys.stdin.readline()
        with Journal({path!r}) as journal:
            for n in range({start}, 1000, 2):
                journal.record([(content(n), outcome(n))], NAN)
            print(journal.stopped)
    """
    writers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(script.format(path=str(path), start=start)),
            ],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for start in (0, 1)
    ]
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.communicate(timeout=100)[0] for writer in writers] == ["None\n", "None\n"]
    assert len(look_up(path, 1000)) == 1000


def test_many_processes_may_make_the_same_file(path):
    script = f"""
        import sys
        from anyfold._engine.journal import Journal
        sys.stdin.readline()
        with Journal({str(path)!r}) as journal:
            print(journal.root_seed)
    """
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)],
            stdin=subprocess.PIPE,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    seeds = {maker.communicate("\n", timeout=100)[0] for maker in makers}
    assert len(seeds) == 1 and seeds.pop().strip().isdecimal()
