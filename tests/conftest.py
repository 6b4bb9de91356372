"""What all tests share: the backends, a limit that dumps all stacks, and a look for what is left."""

import faulthandler
import os
import re
import signal
import sys

import psutil
import pytest
from tests.drivers import Driver

# Type-checked, installed, or a plugin that would change scikit-learn: never collected.
collect_ignore = ["typing", "plugin_package/src", "with_scikit_learn"]


def pytest_configure():
    """Have Ctrl-C work as in a terminal: a shell starts what runs in the background with it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = (
    "ray",
    "test_dask_clusters",
    "test_contract",
    "hostile/",
    "test_resuming",
    "test_leftovers",
    "testing/",
)
"""What is begun first where tests run side by side, so that nobody is alone with it at the end."""
EACH_ALONE = ("test_chaos", "test_contract_on_variants", "test_leftovers", "test_interrupts")
"""Modules whose tests take long and have nothing in common."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep a class or module together where tests run side by side, and start one Ray at a time."""
    for item in items:
        with_ray = "ray" in re.split(r"\W|_", item.name.lower() + item.nodeid.rpartition("::")[0].lower())
        alone = any(f"/{name}.py" in item.nodeid for name in EACH_ALONE)
        scope = item.nodeid if alone else item.nodeid.rpartition("::")[0]
        item.add_marker(pytest.mark.xdist_group("ray" if with_ray or "TestRay" in item.nodeid else scope))
    items.sort(key=_turn)


def _turn(item):
    (scope,) = next(item.iter_markers("xdist_group")).args
    return next((turn for turn, name in enumerate(LONG) if name in scope), len(LONG))


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    for variable in [name for name in os.environ if name.startswith("ANYFOLD_")]:
        monkeypatch.delenv(variable)


@pytest.fixture(autouse=True)
def ctrl_c_stays_with_the_caller():
    """No test, and nothing that it runs, changes what Ctrl-C does here."""
    before = signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    assert (signal.getsignal(signal.SIGINT), signal.pthread_sigmask(signal.SIG_BLOCK, ())) == before


@pytest.fixture(autouse=True)
def no_ray_beside(request):
    """A local Ray that tests have left warm is for other tests with Ray: some look at all processes."""
    (group,) = next(request.node.iter_markers("xdist_group")).args
    warm = sys.modules.get("anyfold.executors._warm")
    if group != "ray" and warm is not None:
        warm.let_go("ray")


@pytest.fixture
def start_driver(tmp_path):
    """Starts a program of which nothing may be left when it has ended."""
    drivers = []

    def start(backend, source):
        folder = tmp_path / str(len(drivers))
        folder.mkdir()
        drivers.append(Driver(folder, backend, source))
        return drivers[-1]

    yield start
    try:
        for driver in drivers:
            driver.check_that_nothing_is_left()
    finally:
        for driver in drivers:
            driver.kill()


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left():
    """No worker outlives the tests; what the interpreter itself keeps until exit is no worker."""
    faulthandler.enable(sys.__stderr__)
    yield
    from anyfold.executors import shutdown

    shutdown()
    left = [
        (process.pid, " ".join(process.cmdline()))
        for process in psutil.Process().children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE
    ]
    workers = [entry for entry in left if not _belongs_to_the_interpreter(entry[1])]
    assert not workers, f"processes are left: {workers}"


def _belongs_to_the_interpreter(command):
    return "resource_tracker" in command or "forkserver" in command
