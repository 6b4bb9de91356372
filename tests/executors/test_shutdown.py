"""What every backend does when it is shut down."""

import threading
from concurrent.futures import wait
from pathlib import Path

import pytest
from tests.executors.executor_helpers import (
    ALL,
    PARALLEL,
    PATIENCE,
    PROCESSES,
    count,
    hold,
    make,
    note,
    read_pid,
    wait_until,
    wait_until_no_worker_is_left,
    workers_of,
)


def add(a, b=0):
    return a + b


@pytest.mark.parametrize("name", ALL)
def test_shutdown_waits_for_tasks_refuses_further_ones_and_may_be_repeated(name, tmp_path):
    executor = make(name)
    futures = [executor.submit(note, tmp_path) for _ in range(10)]
    executor.shutdown()
    assert all(future.done() and future.exception() is None for future in futures)
    assert count(tmp_path) == 10
    executor.shutdown()
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(add, 1)
    assert not workers_of()


@pytest.mark.parametrize("name", PARALLEL)
def test_shutdown_can_cancel_what_waits(name, tmp_path):
    executor = make(name)
    go = tmp_path / "go"
    running = [executor.submit(hold, tmp_path / f"started{i}", go) for i in range(2)]
    for i in range(2):
        read_pid(tmp_path / f"started{i}")
    waiting = [executor.submit(add, 1) for _ in range(20)]
    executor.shutdown(wait=False, cancel_futures=True)
    go.touch()
    assert all(future.exception(PATIENCE) is None for future in running)
    wait_until(lambda: all(future.done() for future in waiting))
    cancelled = [future.cancelled() for future in waiting]
    assert sum(cancelled) >= 15  # standard pools have a few tasks on their way already
    executor.shutdown()


@pytest.mark.parametrize("name", PARALLEL)
def test_shutdown_without_waiting_lets_work_finish(name, tmp_path):
    executor = make(name)
    futures = [executor.submit(note, tmp_path) for _ in range(10)]
    executor.shutdown(wait=False)
    assert len(wait(futures, PATIENCE).done) == 10
    assert count(tmp_path) == 10
    wait_until_no_worker_is_left()


@pytest.mark.parametrize("name", PARALLEL)
def test_shutdown_from_a_callback_does_not_wait_for_itself(name):
    executor = make(name)
    returned = threading.Event()

    def close(future):
        if name == "threads":  # the standard executor would join its own thread
            executor.shutdown(wait=False)
        else:
            executor.shutdown(wait=True)
        returned.set()

    executor.submit(add, 1).add_done_callback(close)
    assert returned.wait(PATIENCE)
    executor.shutdown()
    assert not workers_of()


@pytest.mark.parametrize("name", [name for name in PROCESSES if not name.startswith("joblib")])
def test_many_runs_use_no_more_descriptors(name):
    def run():
        with make(name) as executor:
            assert executor.submit(add, 1).result(PATIENCE) == 1

    def descriptors():
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    run()
    run()
    before = descriptors()
    for _ in range(5):
        run()
    wait_until(lambda: descriptors() <= before, f"descriptors: {before} before, now {descriptors()}")
