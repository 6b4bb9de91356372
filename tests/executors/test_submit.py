"""What every backend does with a task."""

import os
import signal
import sys
import threading
from concurrent.futures import CancelledError, Future, as_completed, wait
from pathlib import Path

import pytest
from tests.executors.executor_helpers import (
    ALL,
    HEALING,
    PARALLEL,
    PATIENCE,
    PROCESSES,
    count,
    hold,
    make,
    note,
    read_pid,
)

from anyfold.errors import UnreadableResultError, WorkerTraceback
from anyfold.executors.base import CAPABILITIES, Executor, capabilities_of, isolation_of

THREADS = ["threads", "joblib-threading"]
INLINE = ["serial", "joblib-sequential"]
POOLS = [name for name in PROCESSES if not name.startswith("joblib")]


def add(a, b=0):
    return a + b


class Unpicklable:
    def __reduce__(self):
        raise TypeError("stays here")


@pytest.fixture(scope="module")
def executor(name):
    """One for all tests of a backend: none of them leaves it other than it was."""
    with make(name) as executor:
        yield executor


@pytest.mark.parametrize("name", ALL, scope="module")
def test_it_declares_what_it_is(executor, name):
    assert isinstance(executor, Executor)
    assert capabilities_of(executor) <= set(CAPABILITIES)
    assert executor.max_workers == (1 if name in INLINE else 2)
    assert isolation_of(executor) == (
        "none" if name in INLINE else "thread" if name in THREADS else "process"
    )
    assert ("healing" in capabilities_of(executor)) == (name in HEALING)


@pytest.mark.parametrize("name", ALL, scope="module")
def test_a_task_gets_its_arguments_and_its_future_the_result(executor, name):
    future = executor.submit(add, 1, b=2)
    assert isinstance(future, Future)
    assert future.result(PATIENCE) == 3
    assert wait([future], PATIENCE).done == {future}


@pytest.mark.parametrize("name", ALL, scope="module")
def test_arguments_may_have_any_name(executor, name):
    assert executor.submit(dict, fn=1, self=2, payload=3).result(PATIENCE) == {
        "fn": 1,
        "self": 2,
        "payload": 3,
    }


@pytest.mark.parametrize("name", ALL, scope="module")
def test_lambdas_closures_and_local_classes_are_tasks(executor, name):
    class Local:
        def __init__(self, value):
            self.value = value

    offset = 10
    result = executor.submit(lambda x: Local(x + offset), 1).result(PATIENCE)
    assert type(result) is Local
    assert result.value == 11


@pytest.mark.parametrize("name", ALL, scope="module")
def test_the_original_exception_arrives(executor, name):
    def fail():
        raise ZeroDivisionError("by hand")

    error = executor.submit(fail).exception(PATIENCE)
    assert type(error) is ZeroDivisionError
    assert str(error) == "by hand"
    if name in PROCESSES:
        assert isinstance(error.__cause__, WorkerTraceback)
        assert "in fail" in str(error.__cause__)
    else:
        assert error.__cause__ is None


@pytest.mark.parametrize("name", PARALLEL, scope="module")
@pytest.mark.parametrize("exception", [SystemExit(3), KeyboardInterrupt()])
def test_system_exit_and_keyboard_interrupt_of_a_task_end_no_worker(executor, name, exception):
    def fail():
        raise exception

    assert type(executor.submit(fail).exception(PATIENCE)) is type(exception)
    assert executor.submit(add, 1).result(PATIENCE) == 1


@pytest.mark.parametrize("name", INLINE, scope="module")
@pytest.mark.parametrize("exception", [SystemExit, KeyboardInterrupt])
def test_inline_they_are_the_callers_own(executor, name, exception):
    def fail():
        raise exception

    with pytest.raises(exception):
        executor.submit(fail)


@pytest.mark.parametrize("name", PROCESSES, scope="module")
def test_what_cannot_be_pickled_fails_its_own_future_only(executor, name):
    assert isinstance(executor.submit(add, Unpicklable()).exception(PATIENCE), TypeError)
    error = executor.submit(Unpicklable).exception(PATIENCE)
    assert isinstance(error, UnreadableResultError)
    assert executor.submit(add, 1).result(PATIENCE) == 1


@pytest.mark.parametrize("name", PROCESSES, scope="module")
def test_tasks_run_in_other_processes_with_the_callers_surroundings(executor, name, tmp_path):
    def look():
        return os.getpid(), Path.cwd(), sys.path, dict(os.environ), signal.getsignal(signal.SIGINT)

    pid, cwd, path, environ, interrupt = executor.submit(look).result(PATIENCE)
    assert pid != os.getpid()
    if not name.startswith("joblib"):  # joblib starts its workers itself
        assert cwd == Path.cwd()
        assert path == sys.path
        assert interrupt == signal.SIG_IGN
        assert {k: v for k, v in environ.items() if k != "PYTEST_CURRENT_TEST"} == {
            k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"
        }


@pytest.mark.parametrize("name", PARALLEL, scope="module")
def test_a_waiting_task_can_be_cancelled_and_never_runs(executor, name, tmp_path):
    (tmp_path / "ran").mkdir()
    go = tmp_path / "go"
    running = [executor.submit(hold, tmp_path / f"started{i}", go) for i in range(2)]
    for i in range(2):
        read_pid(tmp_path / f"started{i}")
    waiting = [executor.submit(note, tmp_path / "ran") for _ in range(20)]
    called = []
    waiting[-1].add_done_callback(called.append)
    assert waiting[-1].cancel()
    assert called == [waiting[-1]]
    assert not running[0].cancel()
    go.touch()
    done, _ = wait(waiting, PATIENCE)
    assert len(done) == 20
    with pytest.raises(CancelledError):
        waiting[-1].result()
    assert count(tmp_path / "ran") == 19


@pytest.mark.parametrize("name", ALL, scope="module")
def test_a_callback_may_submit(executor, name):
    left = 50
    finished = threading.Event()

    def again(future):
        nonlocal left
        left -= future.result()
        if left:
            executor.submit(add, 1).add_done_callback(again)
        else:
            finished.set()

    executor.submit(add, 1).add_done_callback(again)
    assert finished.wait(PATIENCE)


@pytest.mark.parametrize("name", PARALLEL, scope="module")
def test_a_callback_that_raises_ends_nothing(executor, name, caplog, tmp_path):
    def disturb(future):
        raise SystemExit("from a callback")

    if name not in THREADS and not name.startswith("joblib"):
        future = executor.submit(hold, tmp_path / "started", tmp_path / "go")
        future.add_done_callback(disturb)
        (tmp_path / "go").touch()
    assert executor.submit(add, 2).result(PATIENCE) == 2


@pytest.mark.parametrize("name", PARALLEL, scope="module")
def test_many_threads_may_submit(executor, name):
    results = [None] * 8

    def work(i):
        results[i] = sum(executor.submit(add, i, j).result(PATIENCE) for j in range(25))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == [25 * i + 300 for i in range(8)]


@pytest.mark.parametrize("name", ALL, scope="module")
def test_each_task_runs_once(executor, name, tmp_path):
    futures = [executor.submit(note, tmp_path) for _ in range(200)]
    assert sum(1 for _ in as_completed(futures, PATIENCE)) == 200
    assert count(tmp_path) == 200


@pytest.mark.parametrize("name", POOLS, scope="module")
def test_a_large_task_and_a_large_result_arrive(executor, name):
    size = 200_000_000 if name.startswith("multiprocessing") else 20_000_000
    data = bytes(size)
    assert executor.submit(len, data).result(PATIENCE) == size
    assert len(executor.submit(bytes, size).result(PATIENCE)) == size


@pytest.mark.parametrize("name", POOLS, scope="module")
def test_a_fork_of_the_caller_cannot_use_or_break_the_executor(executor, name):
    assert executor.submit(add, 1).result(PATIENCE) == 1
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            executor.submit(add, 1)
        except RuntimeError as error:
            if "fork" in str(error):
                executor.shutdown()
                status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert executor.submit(add, 2).result(PATIENCE) == 2
