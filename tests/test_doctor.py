"""``anyfold doctor``: the command is run as users run it; what it makes of odd machines is asked directly."""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys

import joblib
import numpy as np
import pytest
import sklearn

import anyfold
from anyfold.__main__ import main
from anyfold._commands import facts
from anyfold._commands.facts import Backend, Cores, SettingRow, Storage
from anyfold._commands.problems import Problem, find_problems
from anyfold._settings.fields import ProgramSettings, variable_of

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def anyfold_command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    ours = ("ANYFOLD_", "LOKY_MAX")
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and name not in THREAD_VARIABLES
    }
    return subprocess.run(
        [sys.executable, "-m", "anyfold", *arguments],
        capture_output=True,
        text=True,
        env={**clean, **variables},
        timeout=100,
    )


def rows_of(output: str, title: str) -> dict[str, list[str]]:
    """Return the cells of each row of one table, by the first."""
    (table,) = [block for block in output.split("\n\n") if block.startswith(title)]
    rows = [re.split(r"\s{2,}", line.strip()) for line in table.splitlines()[1:]]
    return {cells[0]: cells[1:] for cells in rows}


@pytest.fixture(autouse=True)
def nothing_limits(monkeypatch):
    for variable in (*THREAD_VARIABLES, "LOKY_MAX_CPU_COUNT"):
        monkeypatch.delenv(variable, raising=False)


# The command


@pytest.fixture(scope="module")
def healthy():
    """What the doctor says with two settings from the environment and nothing wrong."""
    return anyfold_command("doctor", ANYFOLD_BACKEND="threads", ANYFOLD_N_JOBS="1", ANYFOLD_RETRIES="")


def test_a_healthy_installation_exits_with_0(healthy):
    assert (healthy.returncode, healthy.stderr) == (0, "")


def test_a_pipe_gets_plain_text(healthy):
    assert "\x1b" not in healthy.stdout
    assert healthy.stdout.isascii()


def test_versions_are_shown(healthy):
    shown = rows_of(healthy.stdout, "Versions")
    assert shown["anyfold"] == [anyfold.__version__]
    assert shown["Python"][0].split()[-1] == platform.python_version()
    assert shown["numpy"] == [np.__version__]
    assert shown["scikit-learn"] == [sklearn.__version__]
    assert shown["joblib"] == [joblib.__version__]
    assert {"scipy", "loky", "BLAS"} <= set(shown)


def test_backends_are_shown(healthy):
    shown = rows_of(healthy.stdout, "Backends")
    for backend in ("serial", "threads", "multiprocessing", "loky"):
        assert shown[backend][:2] == ["yes", "anyfold"]


def test_cores_are_shown_with_what_limits_them(healthy):
    shown = rows_of(healthy.stdout, "Cores")
    assert shown["cores of the machine"] == [str(os.cpu_count())]
    assert shown["cores that may be used"] == [str(joblib.cpu_count())]
    assert shown["workers of a run"] == ["1"]
    assert {"CPU affinity", "control group quota"} <= set(shown)
    limited = rows_of(anyfold_command("doctor", LOKY_MAX_CPU_COUNT="1").stdout, "Cores")
    assert limited["LOKY_MAX_CPU_COUNT"] == limited["cores that may be used"] == ["1"]


def test_every_setting_is_shown_with_value_source_and_variable(healthy):
    shown = rows_of(healthy.stdout, "Settings")
    for name in ProgramSettings.__annotations__:
        assert shown[name][-1] == (variable_of(name) or "none")
    assert shown["backend"] == ["'threads'", "environment variable ANYFOLD_BACKEND", "ANYFOLD_BACKEND"]
    assert shown["n_jobs"] == ["1", "environment variable ANYFOLD_N_JOBS", "ANYFOLD_N_JOBS"]
    assert shown["retries"] == ["2", "default", "ANYFOLD_RETRIES"]


def test_json_holds_the_same(tmp_path):
    options = '{"a": [1]}'
    done = anyfold_command(
        "doctor", "--json", ANYFOLD_TEMP_DIR=str(tmp_path), ANYFOLD_BACKEND_OPTIONS=options
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["versions"]["numpy"] == np.__version__
    backends = {backend["name"]: backend for backend in report["backends"]}
    assert backends["serial"]["available"] is True
    settings = {row["name"]: row for row in report["settings"]}
    assert list(settings) == list(ProgramSettings.__annotations__)
    assert settings["temp_dir"] == {
        "name": "temp_dir",
        "value": str(tmp_path),
        "source": "environment variable ANYFOLD_TEMP_DIR",
        "variable": "ANYFOLD_TEMP_DIR",
        "problem": None,
    }
    assert settings["backend_options"]["value"] == {"a": [1]}
    assert report["cores"]["usable"] == report["workers"] == joblib.cpu_count()
    assert report["cores"]["limits"]["cores of the machine"] == os.cpu_count()
    places = {place["place"]: place for place in report["storage"]}
    assert places["temporary files"]["path"] == str(tmp_path)
    assert places["temporary files"]["writable"] is True


def test_bad_variables_are_problems_and_exit_with_1():
    done = anyfold_command("doctor", ANYFOLD_N_JOBS="four", ANYFOLD_TIMEOUT="0", ANYFOLD_NJOBS="2")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert (
        "error: ANYFOLD_N_JOBS='four' is not valid: n_jobs takes a non-zero integer (-1 = all cores). "
        "Unset the variable or set it to such a value."
    ) in lines
    assert any(line.startswith("error: ANYFOLD_TIMEOUT='0' is not valid: ") for line in lines)
    assert "warning: ANYFOLD_NJOBS is not a variable of anyfold; did you mean ANYFOLD_N_JOBS?" in lines
    shown = rows_of(done.stdout, "Settings")
    assert shown["n_jobs"][:2] == ["'four'", "environment variable ANYFOLD_N_JOBS, not valid"]
    assert rows_of(done.stdout, "Cores")["workers of a run"] == ["unknown"]


def test_a_bad_variable_is_in_json_and_exits_with_1():
    done = anyfold_command("doctor", "--json", ANYFOLD_TEMP_DIR="/no/such/folder")
    assert done.returncode == 1
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem["level"] == "error"
    assert problem["message"].startswith(
        "ANYFOLD_TEMP_DIR='/no/such/folder' is not valid (there is no such folder)"
    )


def test_a_backend_that_does_not_exist_is_an_error():
    done = anyfold_command("doctor", ANYFOLD_BACKEND="multiprocesing")
    assert done.returncode == 1
    assert "error: There is no backend 'multiprocesing'; did you mean 'multiprocessing'" in done.stdout


def test_cores_that_cannot_be_counted_are_an_error():
    done = anyfold_command("doctor", LOKY_MAX_CPU_COUNT="two")
    assert (done.returncode, done.stderr) == (1, "")
    assert "error: LOKY_MAX_CPU_COUNT='two' is not a number" in done.stdout


def test_help_says_what_each_command_does(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "doctor show what is installed, which setting came from where, and what is wrong" in shown
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    assert "The exit status is 1 if a problem will make runs fail" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["doctr"], ["doctor", "--yaml"]])
def test_arguments_that_cannot_be_understood_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: anyfold" in capsys.readouterr().err


def test_help_needs_no_heavy_package():
    code = """
import sys
from anyfold.__main__ import main
try:
    main(["--help"])
except SystemExit:
    heavy = {"rich", "pydantic", "numpy", "sklearn", "joblib"} & set(sys.modules)
    sys.exit(sorted(heavy) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_command_returns_its_status(capsys, monkeypatch):
    assert main(["doctor"]) == 0
    monkeypatch.setenv("ANYFOLD_RETRIES", "-1")
    assert main(["doctor"]) == 1
    assert "error: ANYFOLD_RETRIES='-1' is not valid" in capsys.readouterr().out


# What it makes of what it finds


def settings(**values) -> list[SettingRow]:
    given = {"n_jobs": 1, **values}
    return [SettingRow(name, value, "set_config", None, None) for name, value in given.items()]


HEALTHY = {
    "backends": [
        Backend("multiprocessing", True, "", "anyfold"),
        Backend("ray", False, 'pip install "anyfold[ray]"', "anyfold"),
    ],
    "cores": Cores({"cores of the machine": 4}, 4),
    "settings": settings(backend="multiprocessing"),
    "storage": [
        Storage("memory", "objects up to 2 GB", None, 2**32, True),
        Storage("temporary files", "larger objects", "/var/tmp", 2**39, True),
        Storage("/dev/shm", "", "/dev/shm", 2**32, True),
    ],
}


def found(**changes) -> list[Problem]:
    return find_problems(**{**HEALTHY, **changes})


def test_nothing_is_wrong_with_a_healthy_machine():
    assert found() == []


def test_a_backend_that_is_set_but_not_installed_is_an_error():
    (problem,) = found(settings=settings(backend="ray"))
    assert problem == Problem(
        "error", "The backend 'ray' that is set cannot be used: pip install \"anyfold[ray]\""
    )


def test_a_name_belongs_to_the_first_backend_that_has_it():
    both = [Backend("mine", True, "", "one"), Backend("mine", False, "not used", "another")]
    assert found(backends=both, settings=settings(backend="mine")) == []


@pytest.mark.parametrize("variable", THREAD_VARIABLES)
@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("many", "='many' is not a number of threads of at least 1"),
        ("0", "='0' is not a number of threads of at least 1"),
        ("5", "=5 is more than the 4 cores"),
        ("5,1", "=5 is more than the 4 cores"),
    ],
)
def test_odd_numbers_of_threads_are_warned_about(variable, value, complaint, monkeypatch):
    monkeypatch.setenv(variable, value)
    (problem,) = found()
    assert problem.level == "warning"
    assert problem.message.startswith(variable + complaint)


@pytest.mark.parametrize("value", ["1", "4", "4,1", ""])
def test_usual_numbers_of_threads_are_no_problem(value, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert found() == []


def test_fork_with_inner_threads_is_an_error():
    (problem,) = found(settings=settings(start_method="fork", inner_threads=2, n_jobs=2))
    assert problem.level == "error"
    assert problem.message.startswith("start_method='fork' with inner_threads=2 is refused")
    assert found(settings=settings(start_method="fork", inner_threads=1, n_jobs=2)) == []
    assert found(settings=settings(start_method="spawn", inner_threads=2, n_jobs=2)) == []


def test_more_threads_than_cores_are_warned_about():
    (problem,) = found(settings=settings(inner_threads=2, n_jobs=3))
    assert problem.level == "warning"
    assert problem.message.startswith("3 workers with inner_threads=2 use more than the 4 cores")


@pytest.mark.parametrize(
    ("place", "level", "complaint"),
    [
        (Storage("memory", "", None, 10**8, True), "warning", "memory: only 100.0 MB are free"),
        (Storage("memory", "", None, 2**40, False), "warning", "memory: cannot be written to"),
        (Storage("/dev/shm", "", "/dev/shm", 10**6, True), "warning", "/dev/shm: only 1.0 MB are free"),
        (Storage("/dev/shm", "", "/dev/shm", None, False), "warning", "/dev/shm: cannot be written to"),
        (
            Storage("temporary files", "", "/t", 10**6, True),
            "warning",
            "/t (temporary files): only 1.0 MB are",
        ),
        (
            Storage("temporary files", "", "/t", None, False),
            "error",
            "/t (temporary files): cannot be written",
        ),
        (Storage("temporary files", "", None, None, False), "error", "temporary files: cannot be written to"),
    ],
)
def test_storage_that_is_small_or_closed_is_a_problem(place, level, complaint):
    (problem,) = found(storage=[place])
    assert problem.level == level
    assert problem.message.startswith(complaint)


def test_errors_come_before_warnings(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    closed = [Storage("temporary files", "", "/t", None, False)]
    levels = [each.level for each in found(settings=settings(backend="ray", n_jobs=9), storage=closed)]
    assert levels == ["error", "error", "warning", "warning"]


def test_a_worker_process_is_noticed():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (problem,) = pool.apply(found)
    assert problem.level == "warning"
    assert problem.message.startswith("This process is a worker of another one")


def test_a_folder_that_takes_no_files_is_found_closed(tmp_path):
    closed, open_ = (
        [each for each in facts.find_storage(folder) if each.place == "temporary files"]
        for folder in ("/proc", tmp_path)
    )
    assert [(each.path, each.writable) for each in closed + open_] == [
        ("/proc", False),
        (str(tmp_path), True),
    ]


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_the_control_group_is_read(files, quota, tmp_path, monkeypatch):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    monkeypatch.setattr(facts, "CGROUP", tmp_path)
    assert facts.find_cores().limits["control group quota"] == quota


def test_backends_are_told_with_the_versions_of_what_they_need():
    told = {each.name: each.detail for each in facts.find_backends() if each.available}
    assert told["loky"] == f"loky {importlib.metadata.version('loky')}"
    assert told["dask"] == f"distributed {importlib.metadata.version('distributed')}"
    assert told["threads"] == "standard library"
    assert told["example"] == "anyfold-example-backend 1.0"
