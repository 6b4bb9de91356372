"""The contract on every backend that comes with anyfold, each under its own name."""

from typing import ClassVar

import joblib

from anyfold import get_executor
from anyfold.testing import ExecutorContract
from anyfold.testing._runner import KNOWN_LIMITS


class TestSerial(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return get_executor("serial", max_workers, **options)


class TestThreads(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return get_executor("threads", max_workers, **options)


class TestProcesses(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return get_executor("processes", max_workers, **options)


class TestMultiprocessing(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return get_executor("multiprocessing", max_workers, **options)


class TestLoky(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return get_executor("loky", max_workers, **options)


class TestJoblib(ExecutorContract):
    expected_failures: ClassVar = KNOWN_LIMITS["joblib"]

    def make_executor(self, max_workers, **options):
        with joblib.parallel_config("loky"):
            return get_executor("joblib", max_workers, **options)


class TestDask(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return get_executor("dask", max_workers, **options)


class TestRay(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return get_executor("ray", max_workers, **options)
