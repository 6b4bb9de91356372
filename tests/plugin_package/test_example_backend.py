"""What a third party writes to prove a backend."""

from anyfold_example_backend import ExampleExecutor

from anyfold.testing import ExecutorContract


class TestExampleExecutor(ExecutorContract):
    def make_executor(self, max_workers, **options):
        return ExampleExecutor(max_workers, **options)
