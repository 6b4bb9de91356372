"""``python -m anyfold check``: the contract from the command line."""

import json
import subprocess
import sys

import pytest

from anyfold.__main__ import main
from anyfold.testing.contract import contract_cases


def check(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "anyfold", "check", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def module(tmp_path):
    """A folder with a backend that is good and one that is not, and no checkout anywhere near."""
    (tmp_path / "mine.py").write_text(
        "from anyfold.executors.threads import ThreadsExecutor as Good\n"
        "class Liar(Good):\n"
        "    isolation = 'process'\n"
        "nothing = 3\n"
    )
    return tmp_path


def test_each_test_has_a_line_and_the_totals_follow(module):
    done = check("serial", "--category", "errors", "--category", "relay", cwd=module)
    assert (done.returncode, done.stderr) == (0, "")
    cases = contract_cases(["errors", "relay"])
    for case in cases:
        assert any(line.startswith("ok ") and case.intent in line for line in done.stdout.splitlines())
    assert f"serial: all {len(cases)} tests are as promised" in done.stdout
    assert "naming the task in its output: no, because it goes" in done.stdout


def test_a_failure_is_shown_with_its_reason_and_its_code(module):
    done = check("mine:Liar", "--category", "protocol", cwd=module)
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "isolation is 'process', the task ran in" in done.stdout
    assert 'assert elsewhere == (isolation_of(executor) == "process")' in done.stdout
    assert "tests failed" in done.stdout


def test_with_json_there_is_one_object_also_of_a_module_in_this_folder(module):
    done = check("mine:Good", "--category", "seeds", "--json", cwd=module)
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["backend"] == "mine:Good"
    assert report["passed"] is True
    assert [test["name"] for test in report["tests"]] == [case.name for case in contract_cases(["seeds"])]
    assert report["totals"] == {
        "seeds": {"passed": len(report["tests"]), "expected failures": 0, "failed": 0}
    }
    assert any("global generators" in note for test in report["tests"] for note in test["notes"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["multiprocesing"], "did you mean 'multiprocessing'"),
        (["serial", "--category", "speed"], "there is no category 'speed'; there are protocol"),
        (["mine:missing"], "cannot be imported as module:factory"),
        (["no_such_module:factory"], "cannot be imported as module:factory"),
        (["mine:nothing"], "it cannot be called"),
    ],
)
def test_what_cannot_be_checked_is_told_with_status_2(module, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["check", *arguments]) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert out == ""


def test_a_backend_of_an_entry_point_can_be_checked(module):
    done = check("example", "--category", "errors", cwd=module)
    assert done.returncode == 0, done.stdout + done.stderr
