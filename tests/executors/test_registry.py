"""Backends by name: built in, registered, or from installed packages."""

import subprocess
import sys
import textwrap

import pytest

import anyfold
from anyfold.errors import (
    InvalidInputError,
    InvalidSettingError,
    MissingDependencyError,
    UnknownBackendError,
)
from anyfold.executors import available_backends, get_executor, register_backend, registry
from anyfold.executors.serial import SerialExecutor

BUILT_IN = ["joblib", "loky", "multiprocessing", "processes", "serial", "threads"]


@pytest.fixture
def clean_registry():
    before = dict(registry._backends)
    yield
    registry._backends.clear()
    registry._backends.update(before)


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """A distribution, as pip would install it, that names two backends."""
    info = tmp_path / "other_pool-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-pool\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[anyfold.backends]\nother = other_pool:OtherExecutor\nserial = other_pool:OtherExecutor\n"
        "absent = other_pool:Missing\n"
    )
    (tmp_path / "other_pool.py").write_text(
        textwrap.dedent(
            """
            from anyfold.executors.serial import SerialExecutor
            class OtherExecutor(SerialExecutor):
                def __init__(self, max_workers, *, colour="red"):
                    super().__init__(max_workers)
                    self.colour = colour
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("other_pool", None)


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_built_in_backend_is_made_by_its_name(name):
    with get_executor(name, n_jobs=2) as executor:
        assert executor.submit(abs, -1).result() == 1
        assert executor.max_workers == (1 if name == "serial" else 2)


def test_they_are_listed_without_being_imported():
    code = """
import sys, anyfold
print(*[b.name for b in anyfold.available_backends() if b.available and b.origin == "anyfold"])
print([m for m in ("loky", "joblib", "multiprocessing", "sklearn", "ray", "distributed") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, imported = done.stdout.splitlines()
    assert set(BUILT_IN) <= set(listed.split())
    assert imported == "[]"


def test_the_mapping_of_backends_cannot_be_changed_past_register_backend():
    with pytest.raises(TypeError):
        registry.BACKENDS["mine"] = None


def test_an_unknown_name_is_answered_with_the_near_ones_and_all():
    with pytest.raises(
        UnknownBackendError, match=r"'lokey'; did you mean 'loky'\? known are .*'joblib', 'loky'.*'threads'"
    ):
        get_executor("lokey")
    with pytest.raises(UnknownBackendError, match="no backend 'xyz'; known are"):
        get_executor("xyz")
    with pytest.raises(LookupError):
        get_executor(3)


def test_an_unknown_option_is_answered_with_the_allowed_ones():
    with pytest.raises(
        InvalidSettingError, match=r"'processes' has no option 'start_methd'; did you mean 'start_me"
    ):
        get_executor("processes", 1, start_methd="fork")
    with pytest.raises(InvalidSettingError, match="'loky' has no option 'timeout'; it has no options"):
        get_executor("loky", 1, timeout=3)
    with pytest.raises(InvalidSettingError, match="the number of workers is n_jobs"):
        get_executor("loky", max_workers=3)


@pytest.mark.parametrize("backend", ["multiprocessing", "processes"])
def test_an_unknown_start_method_is_answered_with_the_known_ones(backend):
    with pytest.raises(InvalidSettingError, match="'teleport' is not one of forkserver, spawn, fork"):
        get_executor(backend, 1, start_method="teleport")


@pytest.mark.parametrize("n_jobs", [0, 1.5, "two"])
def test_n_jobs_must_be_a_number_of_workers(n_jobs):
    with pytest.raises(InvalidSettingError, match="n_jobs"):
        get_executor("threads", n_jobs)


def test_n_jobs_and_start_method_come_from_the_context_where_they_are_not_given():
    with anyfold.config_context(n_jobs=3, start_method="spawn"):
        with get_executor("multiprocessing") as executor:
            assert (executor.max_workers, executor.start_method) == (3, "spawn")
        with get_executor("multiprocessing", 1, start_method="fork") as executor:
            assert (executor.max_workers, executor.start_method) == (1, "fork")
        with get_executor("threads") as executor:
            assert executor.max_workers == 3


def test_a_registered_class_gets_workers_and_options(clean_registry):
    class Mine(SerialExecutor):
        def __init__(self, max_workers, *, colour="red"):
            super().__init__()
            self.given = max_workers, colour

    register_backend("mine", Mine)
    assert get_executor("mine", 4, colour="blue").given == (4, "blue")
    row = next(backend for backend in available_backends() if backend.name == "mine")
    assert row.origin == "register_backend"


def test_a_registered_path_is_imported_when_it_is_used(clean_registry):
    register_backend("later", "anyfold.executors.serial:SerialExecutor")
    assert isinstance(get_executor("later", 1), SerialExecutor)
    register_backend("never", "no_such_module_anywhere:Thing")
    with pytest.raises(
        MissingDependencyError, match="'never' of register_backend cannot be imported from 'no_such"
    ):
        get_executor("never", 1)


def test_a_backend_with_a_number_of_its_own_is_asked_for_it(clean_registry):
    made = []

    def make(max_workers=None):
        made.append(max_workers)
        return SerialExecutor()

    register_backend("own", make)
    get_executor("own")
    get_executor("own", 2)
    assert made == [None, 2]


def test_a_bare_executor_of_a_registered_backend_is_adapted_and_closed(clean_registry):
    from concurrent.futures import ThreadPoolExecutor

    made = []
    register_backend("bare", lambda max_workers: made.append(ThreadPoolExecutor(max_workers)) or made[0])
    with get_executor("bare", 2) as executor:
        assert executor.isolation == "thread"
        assert executor.submit(lambda: 3).result() == 3
    with pytest.raises(RuntimeError):
        made[0].submit(abs, -1)


def test_a_name_is_taken_over_only_on_purpose(clean_registry):
    with pytest.raises(InvalidInputError, match=r"'serial' exists already, from anyfold.*replace=True"):
        register_backend("serial", SerialExecutor)
    register_backend("serial", lambda max_workers: SerialExecutor(), replace=True)
    assert registry.BACKENDS["serial"].origin == "register_backend"


@pytest.mark.parametrize(
    ("name", "target"), [("", SerialExecutor), (3, SerialExecutor), ("x", "no-colon"), ("x", 3)]
)
def test_what_cannot_be_registered_is_refused(name, target, clean_registry):
    with pytest.raises(InvalidInputError, match=r"name|target"):
        register_backend(name, target)


def test_a_missing_package_is_answered_with_the_pip_command(clean_registry):
    register_backend("fake", "no_such_module_anywhere:Pool", requires={"no_such_package": "anyfold[fake]"})
    with pytest.raises(
        MissingDependencyError, match=r'needs .no_such_package.*: pip install "anyfold\[fake\]"'
    ):
        get_executor("fake", 1)
    row = next(backend for backend in available_backends() if backend.name == "fake")
    assert not row.available
    assert 'pip install "anyfold[fake]"' in row.detail


def test_installed_packages_add_backends(distribution):
    executor = get_executor("other", 1, colour="green")
    assert executor.colour == "green"
    row = next(backend for backend in available_backends() if backend.name == "other")
    assert (row.available, row.origin) == (True, "other-pool")


def test_they_never_take_the_name_of_a_built_in_one(distribution):
    assert type(get_executor("serial", 1)) is SerialExecutor
    rows = [backend for backend in available_backends() if backend.name == "serial"]
    assert [(row.origin, row.available) for row in rows] == [("anyfold", True), ("other-pool", False)]
    assert "not used: the name belongs to anyfold" in rows[1].detail


def test_an_entry_point_that_cannot_be_imported_names_its_distribution(distribution):
    with pytest.raises(MissingDependencyError, match="'absent' of other-pool"):
        get_executor("absent", 1)
