"""Executors that the user brings are used as they are, and never closed."""

import concurrent.futures
import os
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import joblib.externals.loky
import loky
import pytest
from tests.executors.executor_helpers import ALL, PATIENCE, hold, make, read_pid

from anyfold.errors import InvalidInputError
from anyfold.executors import as_executor
from anyfold.executors.base import capabilities_of, isolation_of


class Inline:
    """The least that PEP 3148 asks for."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


FOREIGN = {
    "threads": lambda: ThreadPoolExecutor(2),
    "processes": lambda: ProcessPoolExecutor(2),
    "loky": lambda: loky.ProcessPoolExecutor(2),
    "joblib's loky": lambda: joblib.externals.loky.ProcessPoolExecutor(2),
}


@pytest.fixture(params=FOREIGN)
def foreign(request):
    executor = FOREIGN[request.param]()
    yield executor
    executor.shutdown()


def test_it_says_what_is_known_of_the_executor(foreign):
    executor = as_executor(foreign)
    assert executor.max_workers == 2
    assert capabilities_of(executor) == frozenset()
    assert isolation_of(executor) == ("thread" if isinstance(foreign, ThreadPoolExecutor) else "process")


def test_lambdas_and_original_exceptions_pass_through(foreign):
    executor = as_executor(foreign)
    offset = 5
    assert executor.submit(lambda x: x + offset, 1).result(PATIENCE) == 6
    with pytest.raises(ZeroDivisionError):
        executor.submit(lambda: 1 / 0).result(PATIENCE)


def test_shutting_down_the_wrapper_leaves_the_executor_open(foreign):
    with as_executor(foreign) as executor:
        future = executor.submit(abs, -1)
    assert future.done()
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(abs, -1)
    assert foreign.submit(abs, -1).result(PATIENCE) == 1


def test_a_waiting_task_can_be_cancelled_and_a_running_one_cannot(foreign, tmp_path):
    executor = as_executor(foreign)
    go = tmp_path / "go"
    running = [executor.submit(hold, tmp_path / f"started{i}", go) for i in range(2)]
    for i in range(2):
        read_pid(tmp_path / f"started{i}")
    waiting = [executor.submit(abs, -1) for _ in range(20)]
    assert not running[0].cancel()
    assert waiting[-1].cancel()
    assert waiting[-1].cancelled()
    executor.shutdown(wait=False, cancel_futures=True)
    go.touch()
    for future in running:
        future.result(PATIENCE)
    assert all(future.cancel() or future.exception(PATIENCE) is None for future in waiting)


@pytest.mark.parametrize("kind", FOREIGN)
def test_one_that_was_shut_down_is_refused_before_any_work(kind):
    executor = FOREIGN[kind]()
    executor.submit(abs, -1).result(PATIENCE)
    executor.shutdown()
    with pytest.raises(InvalidInputError, match="was shut down"):
        as_executor(executor)


@pytest.mark.parametrize("kind", [kind for kind in FOREIGN if kind != "threads"])
def test_one_that_has_broken_is_refused_and_its_futures_say_so(kind):
    executor = FOREIGN[kind]()
    wrapped = as_executor(executor)
    with pytest.raises(concurrent.futures.BrokenExecutor):
        wrapped.submit(os._exit, 1).result(PATIENCE)
    with pytest.raises(InvalidInputError, match="has broken"):
        as_executor(executor)
    executor.shutdown()


@pytest.mark.parametrize("name", ALL)
def test_executors_of_ours_are_returned_as_they_are_unless_shut_down(name):
    with make(name) as executor:
        assert as_executor(executor) is executor
    with pytest.raises(InvalidInputError, match="was shut down"):
        as_executor(executor)


def test_anything_with_submit_will_do():
    executor = as_executor(Inline())
    assert executor.max_workers is None
    assert executor.submit(lambda: 3).result() == 3
    executor.shutdown()


@pytest.mark.parametrize("nothing", [None, 3, object(), ThreadPoolExecutor, threading])
def test_what_is_no_executor_is_refused(nothing):
    with pytest.raises(InvalidInputError, match="neither the name of a backend nor an executor"):
        as_executor(nothing)


def test_a_submit_that_returns_no_future_is_refused():
    class Strange:
        def submit(self, fn, /, *args, **kwargs):
            return fn(*args, **kwargs)

    with pytest.raises(InvalidInputError, match=r"not a concurrent\.futures\.Future"):
        as_executor(Strange()).submit(abs, -1)
