"""The contract on every backend that comes with anyfold, each under its own name."""

from typing import ClassVar

import joblib

from anyfold import get_executor
from anyfold.testing import ExecutorContract


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


class TestMultiprocessingFork(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return get_executor("multiprocessing", max_workers, start_method="fork", **options)


class TestMultiprocessingSpawn(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return get_executor("multiprocessing", max_workers, start_method="spawn", **options)


class TestLoky(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return get_executor("loky", max_workers, **options)


class TestJoblibLoky(ExecutorContract):
    expected_failures: ClassVar = {
        "test_two_executors_do_not_disturb_each_other": "joblib has one pool for the whole process: "
        "stopping the work of one executor ends the workers of all"
    }

    def make_executor(self, max_workers, **options):
        with joblib.parallel_config("loky"):
            return get_executor("joblib", max_workers, **options)


class TestJoblibThreading(ExecutorContract):
    def make_executor(self, max_workers, **options):
        with joblib.parallel_config("threading"):
            return get_executor("joblib", max_workers, **options)
