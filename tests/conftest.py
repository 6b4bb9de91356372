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


def pytest_sessionstart(session):
    plugins = session.config.pluginmanager
    if terminal := plugins.get_plugin("terminalreporter"):
        plugins.register(TellsAtOnce(terminal))


class TellsAtOnce:
    """A run that is stopped from outside has said what had failed by then."""

    def __init__(self, terminal):
        self.terminal = terminal

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.terminal.write_line(f"\n{report.nodeid} failed in its {report.when}:\n{report.longreprtext}")


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


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: _turn(_scope_of(item.nodeid)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep a class or module together where tests run side by side, and start one Ray at a time."""
    from xdist.scheduler import LoadScopeScheduling

    class ByScope(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return _scope_of(nodeid)

    return ByScope(config, log)


def _scope_of(nodeid):
    """Return what the process is chosen by that runs a test."""
    parent = nodeid.partition("[")[0].rpartition("::")[0]
    if "/test_dask_clusters.py" in nodeid:
        return nodeid.partition("::")[0]
    if "ray" in re.split(r"\W|_", nodeid.lower()) or parent.endswith("TestRay"):
        return "ray"
    return nodeid if any(f"/{module}.py" in nodeid for module in EACH_ALONE) else parent


def _turn(scope):
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
    warm = sys.modules.get("anyfold.executors._warm")
    if warm is not None and _scope_of(request.node.nodeid) != "ray":
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
