"""Fixtures: an executor of each kind, shut down after the test."""

import pytest
from tests.executors.executor_helpers import make

from anyfold.executors import _start, base, shutdown


@pytest.fixture(scope="module", autouse=True)
def no_warm_workers_of_others():
    """Tests here look at all processes below this one; other modules leave warm workers there for minutes."""
    shutdown()


@pytest.fixture(scope="module")
def quick_fork_servers():
    """Fork servers import none of what tasks with models need, for tests that start many of them."""
    with pytest.MonkeyPatch.context() as patch:
        _start.stop_fork_server()
        patch.setattr(_start, "_PRELOAD", _start._PRELOAD[:1])
        yield
        _start.stop_fork_server()


@pytest.fixture
def executor(name):
    with make(name) as executor:
        yield executor
        if "stop_running" in base.capabilities_of(executor):
            executor.stop_running()
