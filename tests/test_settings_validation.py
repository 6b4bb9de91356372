"""Which values of settings are refused, and in which words."""

from __future__ import annotations

import concurrent.futures
import math

import numpy as np
import pytest

from anyfold.errors import InvalidSettingError
from anyfold.settings import ProgramSettings, Settings, config_context, get_config, resolve, set_config

OF_THE_PROGRAM = set(ProgramSettings.__annotations__) - set(Settings.__annotations__)


def variable_of(name):
    return f"ANYFOLD_{name.upper()}"


def run_cv(models=None, *, scoring=None, **settings):
    return resolve(settings, caller=run_cv)


@pytest.fixture(autouse=True)
def process_settings_are_reset():
    yield
    set_config(reset=True)


TAKES = {
    "backend": "the name of a backend, or an executor with submit and shutdown",
    "n_jobs": "a non-zero integer (-1 = all cores)",
    "inner_threads": "an integer of at least 1",
    "resources": "a mapping from models to mappings from resources to amounts of at least 0",
    "timeout": "a finite number of seconds greater than 0",
    "time_limit": "a finite number of seconds greater than 0",
    "retries": "an integer of at least 0",
    "journal": "a path",
    "progress": "True or False",
    "callbacks": "a sequence of callables",
    "backend_options": "a mapping from names to values (in the environment a JSON object)",
    "random_state": "an integer from 0 to 4294967295",
    "temp_dir": "an existing folder that can be written to",
    "start_method": "'fork', 'forkserver' or 'spawn'",
}
NONE = {
    "resources": "nothing particular",
    "timeout": "no limit",
    "time_limit": "no limit",
    "journal": "no journal",
    "progress": "where somebody is watching: in a terminal or a notebook",
    "random_state": "each run draws a seed and records it",
    "temp_dir": "the system's own",
    "start_method": "the backend's own choice",
}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("backend", "", "the name is empty"),
        ("backend", 3, None),
        ("backend", concurrent.futures.ThreadPoolExecutor, "this is a class; make an executor of it"),
        ("n_jobs", 0, "there is no work without workers"),
        ("n_jobs", True, None),
        ("n_jobs", "4", None),
        ("n_jobs", 4.0, None),
        ("n_jobs", np.float64(4), None),
        ("inner_threads", 0, None),
        ("inner_threads", np.int32(-1), None),
        ("inner_threads", True, None),
        ("resources", {"gpu": 1}, None),
        ("resources", {"a": {"gpu": -1}}, "an amount is negative or not finite"),
        ("resources", {"a": {"gpu": math.nan}}, "an amount is negative or not finite"),
        ("resources", {"a": {"gpu": True}}, None),
        ("timeout", 0, None),
        ("timeout", -1.5, None),
        ("timeout", math.inf, None),
        ("timeout", math.nan, None),
        ("timeout", "5", None),
        ("timeout", True, None),
        ("time_limit", 0, None),
        ("retries", -1, None),
        ("retries", False, None),
        ("journal", 3, None),
        ("journal", "", "the path is empty"),
        ("progress", 1, None),
        ("progress", "yes", None),
        ("callbacks", print, None),
        ("callbacks", ["print"], None),
        ("backend_options", [("a", 1)], None),
        ("backend_options", {1: 2}, None),
        ("random_state", -1, None),
        ("random_state", 2**32, None),
        ("random_state", True, None),
        ("temp_dir", "/no/such/folder", "there is no such folder"),
        ("temp_dir", "/dev/null", "it is not a folder"),
        ("start_method", "thread", None),
    ],
)
def test_a_bad_argument_is_named_with_what_is_allowed(name, value, reason):
    with pytest.raises(InvalidSettingError) as caught:
        set_config(**{name: value})
    because = f" ({reason})" if reason else ""
    allowed = TAKES[name] + (f", or None ({NONE[name]})" if name in NONE else "")
    assert str(caught.value) == (
        f"{name}={value!r} is not valid{because}: {name} takes {allowed}. "
        "Pass such a value or leave the argument out."
    )
    if name not in OF_THE_PROGRAM:
        with pytest.raises(InvalidSettingError) as caught_again:
            resolve({name: value})
        assert str(caught_again.value) == str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("backend", "  ", "the name is empty"),
        ("n_jobs", "four", None),
        ("n_jobs", "0", "there is no work without workers"),
        ("n_jobs", "1.5", None),
        ("inner_threads", "0", None),
        ("timeout", "soon", None),
        ("timeout", "nan", None),
        ("timeout", "inf", None),
        ("time_limit", "-1", None),
        ("retries", "-1", None),
        ("journal", " ", "the path is empty"),
        ("progress", "maybe", None),
        ("backend_options", "[1]", None),
        ("backend_options", "null", None),
        ("random_state", "0x10", None),
        ("temp_dir", "/no/such/folder", "there is no such folder"),
        ("start_method", "thread", None),
    ],
)
def test_a_bad_variable_is_named_with_what_is_allowed(name, text, reason, monkeypatch):
    monkeypatch.setenv(variable_of(name), text)
    because = f" ({reason})" if reason else ""
    expected = (
        f"{variable_of(name)}={text!r} is not valid{because}: {name} takes {TAKES[name]}. "
        "Unset the variable or set it to such a value."
    )
    for call in (get_config, lambda: resolve({})):
        with pytest.raises(InvalidSettingError) as caught:
            call()
        assert str(caught.value) == expected


def test_json_that_cannot_be_read_is_explained(monkeypatch):
    monkeypatch.setenv("ANYFOLD_BACKEND_OPTIONS", "{'a': 1}")
    with pytest.raises(
        InvalidSettingError, match=r"is not valid \(key must be a string at line 1 column 2\)"
    ):
        resolve({})


def test_a_folder_that_takes_no_files_is_no_temp_dir():
    with pytest.raises(
        InvalidSettingError, match=r"temp_dir='/proc' is not valid \(it cannot be written to: "
    ):
        set_config(temp_dir="/proc")


def test_a_folder_that_is_made_after_the_error_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("ANYFOLD_TEMP_DIR", str(tmp_path / "new"))
    with pytest.raises(InvalidSettingError, match="there is no such folder"):
        resolve({})
    (tmp_path / "new").mkdir()
    assert resolve({}).temp_dir == tmp_path / "new"


def test_all_problems_of_a_call_are_reported_together(monkeypatch):
    monkeypatch.setenv("ANYFOLD_N_JOBS", "four")
    monkeypatch.setenv("ANYFOLD_PROGRESS", "maybe")
    monkeypatch.setenv("ANYFOLD_INNER_THREADS", "2")
    with pytest.raises(InvalidSettingError) as caught:
        resolve({"retries": -1, "timeout": 0, "journal": "fine"})
    starts = [line.split(" ")[0] for line in str(caught.value).splitlines()]
    assert sorted(starts) == ["ANYFOLD_N_JOBS='four'", "ANYFOLD_PROGRESS='maybe'", "retries=-1", "timeout=0"]


def test_a_bad_variable_is_no_error_where_it_does_not_count(monkeypatch):
    monkeypatch.setenv("ANYFOLD_N_JOBS", "four")
    monkeypatch.setenv("ANYFOLD_RETRIES", "5")
    assert resolve({"n_jobs": 3}).n_jobs == 3
    with config_context(n_jobs=2):
        assert (resolve({}).n_jobs, resolve({}).retries) == (2, 5)


def test_a_long_value_is_shortened_in_messages():
    with pytest.raises(InvalidSettingError) as caught:
        resolve({"progress": "x" * 10_000})
    assert len(str(caught.value)) < 400


def test_an_unknown_setting_is_a_type_error_with_what_was_meant():
    with pytest.raises(TypeError) as caught:
        run_cv(njobs=2)
    assert str(caught.value) == "run_cv() got an unexpected setting 'njobs'; did you mean 'n_jobs'?"
    with pytest.raises(TypeError, match="did you mean 'scoring'"):
        run_cv(scorin="accuracy")
    with pytest.raises(
        TypeError, match="unexpected setting 'verbose'; the settings are backend, n_jobs, inner_"
    ):
        run_cv(verbose=1)
    with (
        pytest.raises(TypeError, match=r"config_context\(\) got an unexpected setting 'seed'"),
        config_context(seed=1),
    ):
        pass


def test_unknown_and_bad_settings_are_reported_together():
    with pytest.raises(TypeError) as caught:
        resolve({"njobs": 2, "timeuot": 3, "retries": -1}, caller="fit_models")
    njobs, timeout, retries = str(caught.value).splitlines()
    assert "'njobs'; did you mean 'n_jobs'?" in njobs
    assert "'timeuot'; did you mean 'timeout'?" in timeout
    assert retries.startswith("retries=-1 is not valid")


@pytest.mark.parametrize("name", sorted(OF_THE_PROGRAM))
def test_a_setting_of_the_program_is_no_argument_of_a_call(name):
    with pytest.raises(TypeError) as caught:
        run_cv(**{name: None})
    assert str(caught.value) == (
        f"run_cv() got an unexpected setting {name!r}: it concerns the whole program; "
        f"use config_context, set_config or {variable_of(name)}"
    )
