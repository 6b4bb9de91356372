"""Where the value of a setting comes from, what it becomes, and how settings are shown."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import dataclasses
import inspect
import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, Unpack

import joblib
import numpy as np
import pytest

from anyfold.errors import AnyfoldWarning, InvalidSettingError
from anyfold.settings import (
    ProgramSettings,
    Resolved,
    Settings,
    config_context,
    effective_n_jobs,
    get_config,
    resolve,
    set_config,
    settings_docs,
    with_settings_signature,
)

DEFAULTS = {
    "backend": "auto",
    "n_jobs": None,
    "inner_threads": 1,
    "resources": None,
    "timeout": None,
    "time_limit": None,
    "retries": 2,
    "journal": None,
    "progress": None,
    "callbacks": (),
    "backend_options": {},
    "random_state": None,
    "temp_dir": None,
    "start_method": None,
}

OF_THE_PROGRAM = {"random_state", "temp_dir", "start_method"}
WITHOUT_VARIABLE = {"resources", "callbacks"}

# Three values that differ from each other and from the default, and one as a variable holds it.
VALUES: dict[str, tuple[tuple[Any, Any, Any], str | None, Any]] = {
    "backend": (("serial", "threads", "loky"), "ray", "ray"),
    "n_jobs": ((1, 2, -2), "5", 5),
    "inner_threads": ((2, 3, 4), "5", 5),
    "resources": (({"a": {"gpu": 1.0}}, {"a": {"gpu": 0.5}}, {"b": {"cpu": 2.0}}), None, None),
    "timeout": ((0.5, 20.0, 30.0), "40.5", 40.5),
    "time_limit": ((10.0, 20.0, 30.0), "40", 40.0),
    "retries": ((0, 1, 3), "4", 4),
    "journal": ((Path("a"), Path("b"), Path("c")), "d.journal", Path("d.journal")),
    "progress": ((True, False, True), "0", False),
    "callbacks": (((print,), (len,), (repr, str)), None, None),
    "backend_options": (({"a": 1}, {"b": 2}, {"c": [3]}), '{"d": {"e": null}}', {"d": {"e": None}}),
    "random_state": ((0, 1, 2), "4294967295", 4294967295),
    "temp_dir": ((Path("/"), Path("/var"), Path("/usr")), None, None),
    "start_method": (("fork", "spawn", "forkserver"), "spawn", "spawn"),
}


def variable_of(name: str) -> str:
    return f"ANYFOLD_{name.upper()}"


@pytest.fixture(autouse=True)
def process_settings_are_reset():
    yield
    set_config(reset=True)


@pytest.fixture
def run_cv():
    """A front door: it takes settings and returns what they come to."""

    @with_settings_signature
    def run_cv(
        models: object = None, *, scoring: str | None = None, **settings: Unpack[Settings]
    ) -> Resolved:
        """Run.

        Parameters
        ----------
        models : object
            Anything.
        scoring : str or None
            Anything else.
        **settings : Settings
            How to run,
            see `Settings`.

            A second paragraph.

        Returns
        -------
        Resolved
            What it came to.
        """
        return resolve(settings, caller=run_cv)

    return run_cv


@pytest.fixture
def values(tmp_path):
    """Values as in VALUES, with folders that exist."""
    folders = [tmp_path / name for name in "abcd"]
    for folder in folders:
        folder.mkdir()
    return {**VALUES, "temp_dir": (tuple(folders[:3]), str(folders[3]), folders[3])}


def seen(name: str, **arguments: Any) -> tuple[Any, str]:
    resolved = resolve(arguments)
    return getattr(resolved, name), resolved.sources[name]


def in_a_new_process(code: str, **variables: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANYFOLD_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**clean, **variables}, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Which value counts


def test_the_tests_know_every_setting():
    assert (
        set(DEFAULTS) == set(VALUES) == {field.name for field in dataclasses.fields(Resolved)} - {"sources"}
    )
    assert set(DEFAULTS) == set(ProgramSettings.__annotations__)
    assert set(DEFAULTS) - OF_THE_PROGRAM == set(Settings.__annotations__)


def test_without_anything_set_every_value_is_the_default():
    resolved = resolve({})
    assert {name: getattr(resolved, name) for name in DEFAULTS} == DEFAULTS
    assert resolved.sources == dict.fromkeys(DEFAULTS, "default")


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_level_hides_those_below_it(name, values, monkeypatch):
    (argument, in_context, in_process), text, from_text = values[name]
    assert seen(name) == (DEFAULTS[name], "default")
    if text is not None:
        monkeypatch.setenv(variable_of(name), text)
        assert seen(name) == (from_text, f"environment variable {variable_of(name)}")
    set_config(**{name: in_process})
    assert seen(name) == (in_process, "set_config")
    with config_context(**{name: in_context}):
        assert seen(name) == (in_context, "config_context")
        if name not in OF_THE_PROGRAM:
            assert seen(name, **{name: argument}) == (argument, "argument")
        with config_context(**{name: argument}):
            assert seen(name) == (argument, "config_context")
        assert seen(name) == (in_context, "config_context")
    assert seen(name) == (in_process, "set_config")
    set_config(reset=name)
    assert seen(name)[1] == ("default" if text is None else f"environment variable {variable_of(name)}")


def test_the_environment_is_read_at_each_call(monkeypatch):
    monkeypatch.setenv("ANYFOLD_N_JOBS", "3")
    assert resolve({}).n_jobs == 3
    monkeypatch.setenv("ANYFOLD_N_JOBS", "4")
    assert resolve({}).n_jobs == 4
    monkeypatch.delenv("ANYFOLD_N_JOBS")
    assert resolve({}).n_jobs is None


@pytest.mark.parametrize("name", sorted(set(DEFAULTS) - WITHOUT_VARIABLE))
def test_an_empty_variable_counts_as_unset(name, monkeypatch):
    monkeypatch.setenv(variable_of(name), "")
    assert seen(name) == (DEFAULTS[name], "default")
    other = "retries" if name == "n_jobs" else "n_jobs"
    monkeypatch.setenv(variable_of(other), "3")
    assert seen(name) == (DEFAULTS[name], "default")
    assert seen(other) == (3, f"environment variable {variable_of(other)}")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("timeout", "5", 5.0), ("time_limit", "5", 5.0), ("journal", "j", Path("j")), ("progress", "yes", True)],
)
def test_none_counts_where_it_means_something(name, text, value, monkeypatch):
    monkeypatch.setenv(variable_of(name), text)
    assert seen(name) == (value, f"environment variable {variable_of(name)}")
    assert seen(name, **{name: None}) == (None, "argument")
    with config_context(**{name: None}):
        assert seen(name) == (None, "config_context")


@pytest.mark.parametrize(
    "name", ["backend", "n_jobs", "inner_threads", "retries", "callbacks", "backend_options"]
)
def test_none_counts_as_not_given_where_it_means_nothing(name, values):
    (value, _, _), _, _ = values[name]
    assert seen(name, **{name: None}) == (DEFAULTS[name], "default")
    with config_context(**{name: value}), config_context(**{name: None}):
        assert seen(name, **{name: None}) == (value, "config_context")
    set_config(**{name: value})
    set_config(**{name: None})
    assert seen(name) == (value, "set_config")


def test_contexts_nest_by_setting():
    with config_context(n_jobs=2, retries=7), config_context(retries=8):
        assert (resolve({}).n_jobs, resolve({}).retries) == (2, 8)
    assert resolve({}).retries == 2


def test_a_context_ends_when_its_block_raises():
    with pytest.raises(ZeroDivisionError), config_context(retries=7):
        1 / 0
    assert resolve({}).retries == 2


def test_a_context_decorates_a_function():
    @config_context(retries=9)
    def retries() -> int:
        return resolve({}).retries

    assert (retries(), resolve({}).retries, retries()) == (9, 2, 9)


def test_threads_do_not_see_each_others_contexts():
    together = threading.Barrier(2, timeout=30)

    def observe(n_jobs: int) -> list[int | None]:
        with config_context(n_jobs=n_jobs):
            together.wait()  # both are inside their contexts
            inside = resolve({}).n_jobs
            together.wait()
        return [inside, resolve({}).n_jobs]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        assert list(pool.map(observe, [2, 3])) == [[2, None], [3, None]]


def test_a_new_thread_sees_the_process_and_a_copied_context_the_context():
    set_config(retries=5)
    with config_context(retries=6), concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: resolve({}).retries).result() == 5
        copied = contextvars.copy_context()
        assert pool.submit(copied.run, lambda: resolve({}).retries).result() == 6


def test_asyncio_tasks_inherit_a_context_and_keep_their_own():
    async def change(retries: int, inside: asyncio.Event, other: asyncio.Event) -> tuple[int, int]:
        inherited = resolve({}).retries
        with config_context(retries=retries):
            inside.set()
            await other.wait()
            return inherited, resolve({}).retries

    async def main() -> tuple[list[tuple[int, int]], int]:
        first, second = asyncio.Event(), asyncio.Event()
        with config_context(retries=7):
            tasks = [
                asyncio.create_task(change(8, first, second)),
                asyncio.create_task(change(9, second, first)),
            ]
        return await asyncio.gather(*tasks), resolve({}).retries

    assert asyncio.run(main()) == ([(7, 8), (7, 9)], 2)


def test_set_config_is_reset_by_name_or_wholly():
    set_config(retries=5, n_jobs=2, timeout=3)
    set_config(reset=["retries", "timeout"], n_jobs=3)
    assert resolve({}).sources["retries"] == resolve({}).sources["timeout"] == "default"
    assert seen("n_jobs") == (3, "set_config")
    set_config(reset=True)
    assert resolve({}) == Resolved(**DEFAULTS, sources={})
    with pytest.raises(
        TypeError, match=r"set_config\(\) got an unexpected setting 'retry'; did you mean 'retries'"
    ):
        set_config(reset="retry")


def test_set_config_changes_nothing_when_something_is_wrong():
    set_config(retries=5)
    with pytest.raises(InvalidSettingError):
        set_config(reset=True, n_jobs=3, timeout=-1)
    assert (resolve({}).retries, resolve({}).n_jobs) == (5, None)


# What values become


def test_resolved_is_frozen_and_slotted():
    resolved = resolve({})
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolved.n_jobs = 3
    assert not hasattr(resolved, "__dict__")


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("n_jobs", np.int64(3), 3),
        ("retries", np.uint8(0), 0),
        ("timeout", np.float32(0.5), 0.5),
        ("timeout", 3, 3.0),
        ("progress", np.True_, True),
        ("journal", "somewhere", Path("somewhere")),
        ("callbacks", [print], (print,)),
        ("resources", {"a": {"gpu": 1}}, {"a": {"gpu": 1.0}}),
    ],
)
def test_values_become_what_they_stand_for(name, given, value):
    result = getattr(resolve({name: given}), name)
    assert result == value
    assert type(result) is type(value)


def test_a_tilde_in_a_path_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANYFOLD_TEMP_DIR", "~")
    assert resolve({"journal": "~/runs"}).journal == tmp_path / "runs"
    assert resolve({}).temp_dir == tmp_path


def test_backend_options_belong_to_the_call():
    options = {"a": 1}
    resolved = resolve({"backend_options": options})
    options["b"] = 2
    assert resolved.backend_options == {"a": 1}
    resolve({}).backend_options["c"] = 3
    assert resolve({}).backend_options == {}


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("off", False), ("No", False)])
def test_progress_is_switched_by_the_usual_words(text, value, monkeypatch):
    monkeypatch.setenv("ANYFOLD_PROGRESS", text)
    assert resolve({}).progress is value


# Executors as backends


@pytest.fixture
def executor():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool


def test_an_executor_instance_is_a_backend(executor):
    assert resolve({"backend": executor}).backend is executor
    with config_context(backend=executor):
        assert resolve({}).backend is executor


def test_n_jobs_and_backend_options_as_arguments_beside_an_executor_are_errors(executor):
    with pytest.raises(InvalidSettingError) as caught:
        resolve({"backend": executor, "n_jobs": 4, "backend_options": {"a": 1}})
    n_jobs, options = str(caught.value).splitlines()
    assert n_jobs == (
        "n_jobs=4 has no effect on an executor, which was made with its own. "
        "Leave n_jobs out, or pass the name of a backend instead of an executor."
    )
    assert options.startswith("backend_options={'a': 1} has no effect on an executor")
    with config_context(backend=executor), pytest.raises(InvalidSettingError, match="n_jobs=4 has no effect"):
        resolve({"n_jobs": 4})
    with pytest.raises(InvalidSettingError, match="n_jobs=4 has no effect"):
        set_config(backend=executor, n_jobs=4)


def test_n_jobs_and_backend_options_from_elsewhere_are_not_used_beside_an_executor(executor, monkeypatch):
    monkeypatch.setenv("ANYFOLD_N_JOBS", "4")
    with config_context(backend_options={"a": 1}):
        resolved = resolve({"backend": executor, "n_jobs": None})
    assert (resolved.n_jobs, resolved.backend_options) == (None, {})
    assert resolved.sources["n_jobs"] == (
        "default (environment variable ANYFOLD_N_JOBS is not used beside an executor)"
    )
    assert resolved.sources["backend_options"] == "default (config_context is not used beside an executor)"


def test_a_bad_variable_is_no_error_beside_an_executor_that_does_not_use_it(executor, monkeypatch):
    monkeypatch.setenv("ANYFOLD_N_JOBS", "four")
    assert resolve({"backend": executor}).n_jobs is None
    with pytest.raises(InvalidSettingError, match="ANYFOLD_N_JOBS"):
        resolve({"backend": "loky"})


# Variables that nobody reads


def test_an_unknown_variable_is_warned_about_once():
    code = """
import warnings
warnings.simplefilter("always")
from anyfold.settings import get_config, resolve
with warnings.catch_warnings(record=True) as caught:
    import os
    resolve({}); resolve({"n_jobs": 2}); get_config()
    os.environ["ANYFOLD_RETRIES"] = "3"
    resolve({})
for warning in caught:
    print(warning.category.__name__, warning.message)
"""
    lines = in_a_new_process(
        code, ANYFOLD_NJOBS="4", ANYFOLD_CALLBACKS="x", ANYFOLD_COLOUR="red", ANYFOLD_EMPTY=""
    ).splitlines()
    assert sorted(lines) == [
        "AnyfoldWarning ANYFOLD_CALLBACKS is not read: callbacks can be set in Python only, by "
        "config_context or set_config.",
        "AnyfoldWarning ANYFOLD_COLOUR is not a variable of anyfold; those that are read are "
        + ", ".join(sorted(variable_of(name) for name in set(DEFAULTS) - WITHOUT_VARIABLE))
        + ".",
        "AnyfoldWarning ANYFOLD_NJOBS is not a variable of anyfold; did you mean ANYFOLD_N_JOBS?",
    ]


def test_a_warning_names_the_line_that_called_a_front_door(run_cv, monkeypatch):
    monkeypatch.setenv("ANYFOLD_A_NAME_OF_THIS_TEST", "1")
    with pytest.warns(AnyfoldWarning, match="ANYFOLD_A_NAME_OF_THIS_TEST") as caught:
        run_cv()
    line = inspect.currentframe().f_lineno - 1
    assert [(warning.filename, warning.lineno) for warning in caught] == [(__file__, line)]


def test_variables_that_only_look_alike_are_left_alone(monkeypatch):
    monkeypatch.setenv("MY_ANYFOLD_N_JOBS", "x")
    monkeypatch.setenv("anyfold_n_jobs", "3")
    monkeypatch.setenv("ANYFOLD_RETRIES", "4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve({}).n_jobs is None


# What is in force


def test_get_config_names_value_and_source_of_every_setting(monkeypatch):
    monkeypatch.setenv("ANYFOLD_BACKEND", "loky")
    set_config(retries=5)
    with config_context(random_state=7):
        config = get_config()
    assert set(config) == set(DEFAULTS)
    assert config["backend"] == ("loky", "environment variable ANYFOLD_BACKEND")
    assert config["retries"] == (5, "set_config")
    assert (config["random_state"].value, config["random_state"].source) == (7, "config_context")
    lines = {line.split()[0]: line for line in repr(config).splitlines()}
    assert set(lines) == set(DEFAULTS)
    assert lines["backend"].split(maxsplit=2)[1:] == ["'loky'", "environment variable ANYFOLD_BACKEND"]


# Cores


def test_n_jobs_counts_from_the_end_as_in_joblib(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)
    assert [effective_n_jobs(n_jobs) for n_jobs in (None, -1, -2, -8, -100, 3, 100)] == [
        8,
        8,
        7,
        1,
        1,
        3,
        100,
    ]
    assert effective_n_jobs(np.int8(-2)) == 7


@pytest.mark.parametrize("n_jobs", [0, True, 1.0, "2"])
def test_n_jobs_that_means_nothing_is_refused(n_jobs):
    with pytest.raises(InvalidSettingError, match="n_jobs takes a non-zero integer"):
        effective_n_jobs(n_jobs)


def test_only_cores_that_the_process_may_use_are_counted():
    one = min(os.sched_getaffinity(0))
    code = f"""
import os
os.sched_setaffinity(0, {{{one}}})
from anyfold.settings import effective_n_jobs
print(effective_n_jobs(None), effective_n_jobs(-1), effective_n_jobs(-2))
"""
    assert in_a_new_process(code).split() == ["1", "1", "1"]


# How settings are shown


def test_the_signature_shows_every_setting_with_default_and_type(run_cv):
    parameters = inspect.signature(run_cv).parameters
    assert list(parameters) == ["models", "scoring", *Settings.__annotations__]
    for name in Settings.__annotations__:
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default == DEFAULTS[name]
    assert parameters["n_jobs"].annotation == int | None
    assert parameters["timeout"].annotation == float | None


def test_a_front_door_works_as_before(run_cv):
    assert run_cv(None, scoring="accuracy", retries=4).retries == 4


def test_the_docstring_describes_every_setting_in_place_of_the_bundle(run_cv):
    from numpydoc.docscrape import FunctionDoc

    document = FunctionDoc(run_cv)
    entries = {entry.name: entry for entry in document["Parameters"]}
    assert list(entries) == ["models", "scoring", *Settings.__annotations__]
    assert "A second paragraph" not in run_cv.__doc__
    assert [entry.type for entry in document["Returns"]] == ["Resolved"]
    for name in Settings.__annotations__:
        text = " ".join(entries[name].desc)
        assert entries[name].type.endswith(f", default={DEFAULTS[name]!r}")
        assert (f"``{variable_of(name)}``" in text) == (name not in WITHOUT_VARIABLE)
    assert entries["n_jobs"].type == "int or None, default=None"
    assert entries["journal"].type == "str, PathLike or None, default=None"
    for name in ("timeout", "time_limit"):
        text = " ".join(entries[name].desc)
        assert text.startswith("Seconds ")
        assert "None: no limit." in text


def test_help_shows_settings_and_variables(run_cv, capsys):
    help(run_cv)
    shown = capsys.readouterr().out
    assert "n_jobs: int | None = None" in shown
    assert "backend : str, Executor or None, default='auto'" in shown
    assert "ANYFOLD_N_JOBS" in shown


def test_settings_docs_are_numpydoc_entries():
    text = settings_docs()
    heads = [line for line in text.splitlines() if not line.startswith(" ")]
    assert [head.split(" : ")[0] for head in heads] == list(Settings.__annotations__)


@pytest.mark.parametrize("function", [config_context, set_config])
def test_contexts_show_the_settings_of_the_program_too(function):
    parameters = inspect.signature(function).parameters
    assert [name for name in parameters if name != "reset"] == list(ProgramSettings.__annotations__)
    assert repr(parameters["n_jobs"].default) == "<unchanged>"
    assert "start_method : {'fork', 'forkserver', 'spawn'} or None, optional" in function.__doc__
    assert "**settings" not in function.__doc__


def test_only_a_value_to_check_imports_pydantic():
    code = """
import json, sys
def loaded():
    return sorted({"pydantic", "pydantic_settings", "rich", "joblib", "pandas"} & set(sys.modules))
seen = []
import anyfold.settings as settings
seen.append(loaded())
settings.resolve({}), settings.get_config(), settings.settings_docs()
seen.append(loaded())
settings.resolve({"n_jobs": 2})
seen.append(loaded())
print(json.dumps(seen))
"""
    at_import, at_defaults, at_argument = json.loads(in_a_new_process(code))
    assert at_import == at_defaults == []
    assert at_argument == ["pydantic"]


def test_variables_are_parsed_once_until_they_change(monkeypatch):
    from anyfold._settings import validation

    parsed = []
    original = validation.validate_environment
    monkeypatch.setattr(validation, "validate_environment", lambda: parsed.append(1) or original())
    monkeypatch.setenv("ANYFOLD_N_JOBS", "31")
    for _ in range(5):
        resolve({})
    assert len(parsed) == 1
    monkeypatch.setenv("ANYFOLD_N_JOBS", "32")
    assert resolve({}).n_jobs == 32
    assert len(parsed) == 2
