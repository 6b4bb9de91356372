"""Fixtures: an executor of each kind, shut down after the test."""

import pytest
from tests.executors.executor_helpers import make

from anyfold.executors import base


@pytest.fixture
def executor(name):
    with make(name) as executor:
        yield executor
        if "stop_running" in base.capabilities_of(executor):
            executor.stop_running()
