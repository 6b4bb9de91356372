"""``anyfold journal FILE``, run as users run it."""

import json
import sqlite3
import subprocess
import sys

import pytest
from tests.journal.conftest import NAN, content, outcome

from anyfold._commands.journal import _print, summarize
from anyfold._engine.journal import Journal
from anyfold._worker.failures import failure_of


def anyfold_journal(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "anyfold", "journal", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture
def two_runs(path):
    with Journal(path, {"numpy": "2.4.0"}) as journal:
        journal.record([(content(n, "LogisticRegression"), outcome(n)) for n in range(3)], NAN)
    with Journal(path, {"numpy": "2.4.1"}) as journal:
        failed = outcome(3, value=None, failure=failure_of("fit", ValueError("no")))
        journal.record([(content(3, "Pipeline(StandardScaler, SVC)"), failed)], NAN)
    return path


def test_outcomes_failures_models_and_runs_are_shown(two_runs):
    done = anyfold_journal(two_runs)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "4 outcomes, 1 of them failures" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["LogisticRegression", "3", "0", "0.75"] in [line[:4] for line in lines]
    assert ["Pipeline(StandardScaler,", "SVC)", "1", "1", "0"] in [line[:5] for line in lines]
    runs = [line for line in lines if line[-2:-1] == ["numpy"]]
    assert [(line[0], line[3], line[-1]) for line in runs] == [("1", "3", "2.4.0"), ("2", "1", "2.4.1")]


def test_json_holds_the_same(two_runs):
    done = anyfold_journal(two_runs, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["outcomes"], told["failures"]) == (4, 1)
    assert told["size"] == two_runs.stat().st_size
    assert [(row["model"], row["outcomes"], row["failures"]) for row in told["models"]] == [
        ("LogisticRegression", 3, 0),
        ("Pipeline(StandardScaler, SVC)", 1, 1),
    ]
    assert [(row["run"], row["recorded"], row["versions"]) for row in told["runs"]] == [
        (1, 3, {"numpy": "2.4.0"}),
        (2, 1, {"numpy": "2.4.1"}),
    ]


def test_a_journal_without_outcomes_is_shown(path):
    Journal(path).close()
    done = anyfold_journal(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 outcomes, 0 of them failures" in done.stdout


def test_nothing_is_left_beside_the_file_and_nothing_in_it_is_changed(two_runs):
    before = two_runs.read_bytes()
    assert anyfold_journal(two_runs).returncode == 0
    assert list(two_runs.parent.iterdir()) == [two_runs]
    assert two_runs.read_bytes() == before


def test_a_journal_can_be_shown_while_a_run_writes_to_it(path):
    with Journal(path) as journal:
        journal.record([(content(0), outcome())], NAN)
        assert "1 outcome, " in anyfold_journal(path).stdout
        journal.record([(content(1), outcome(1))], NAN)
        assert journal.stopped is None
        assert "2 outcomes, " in anyfold_journal(path).stdout


def test_what_stands_in_the_file_cannot_steer_the_terminal(path):
    with Journal(path, {"\x1b[2Jnumpy": "2\n"}) as journal:
        journal.record([(content(0, "\x1b]0;title\x07[bold]Model"), outcome())], NAN)
    done = anyfold_journal(path)
    assert done.returncode == 0
    assert not {"\x1b", "\x07"} & set(done.stdout)
    assert "[bold]Model" in done.stdout


def test_a_file_that_is_no_journal_exits_with_1(tmp_path):
    text = tmp_path / "text"
    text.write_text("no journal" * 100)
    for file in (text, tmp_path / "missing"):
        done = anyfold_journal(file)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("anyfold journal: ") and str(file) in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("value", ["NULL", "9e999", "-9e999", "'text'", "x'ff'"])
def test_no_value_in_a_column_ends_the_command(two_runs, value):
    database = sqlite3.connect(two_runs, isolation_level=None)
    database.execute(f"UPDATE outcomes SET recorded={value}, failed={value}, fit_time={value}, run={value}")
    database.execute(f"UPDATE runs SET started={value}, anyfold={value}, versions={value}")
    database.close()
    contents = summarize(two_runs)
    assert (contents.outcomes, contents.failures, len(contents.runs)) == (4, 4, 2)
    _print(contents)
