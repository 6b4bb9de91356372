"""A worker that ends costs its own task, or on a shared pool the tasks given so far; never the executor."""

import os
import signal
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import pytest
from tests.executors.executor_helpers import (
    HEALING,
    OWN_POOL,
    PATIENCE,
    alive,
    count,
    hold,
    make,
    note,
    read_pid,
    wait_until,
    wait_until_no_worker_is_left,
    workers_of,
)

from anyfold.errors import WorkerLostError
from anyfold.executors import _start


def end(how):
    if how == "exit":
        os._exit(3)
    if how == "abort":
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGABRT)
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def note_and_wait(folder, go):
    note(folder)
    wait_until(Path(go).exists, go)


ENDINGS = [("exit", 3, "status 3"), ("kill", -9, "SIGKILL.*memory"), ("abort", -6, "SIGABRT")]


@pytest.mark.parametrize("name", HEALING)
def test_it_heals_again_and_again_and_the_error_names_the_worker_and_how_it_ended(executor, name):
    assert executor.submit(abs, -1).result(PATIENCE) == 1
    incidents = set()
    for how, exitcode, told in ENDINGS:
        with pytest.raises(WorkerLostError, match=told) as caught:
            executor.submit(end, how).result(PATIENCE)
        assert caught.value.exitcode == exitcode
        assert isinstance(caught.value.pid, int)
        assert not alive(caught.value.pid)
        incidents.add(caught.value.incident)
        assert executor.submit(abs, -2).result(PATIENCE) == 2
    assert len(incidents - {None}) == len(ENDINGS)


@pytest.mark.parametrize("name", HEALING)
def test_a_callback_of_a_lost_future_may_submit_the_task_again(executor, name):
    done = threading.Event()

    def again(future):
        if isinstance(future.exception(), WorkerLostError):
            executor.submit(abs, -1).add_done_callback(lambda _: done.set())

    executor.submit(end, "kill").add_done_callback(again)
    assert done.wait(PATIENCE)


@pytest.mark.parametrize("name", HEALING)
def test_no_process_of_a_broken_pool_survives_shutdown(name):
    executor = make(name)
    executor.submit(end, "kill").exception(PATIENCE)
    executor.submit(abs, -1).result(PATIENCE)
    executor.shutdown()
    wait_until_no_worker_is_left()


@pytest.mark.parametrize("name", HEALING)
def test_an_idle_worker_that_is_killed_costs_nothing(executor, name):
    pid = executor.submit(os.getpid).result(PATIENCE)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "its end")
    if name == "joblib-multiprocessing":
        # Its watcher notices a moment later; a task given in between may be counted as lost.
        wait_until(lambda: executor.submit(abs, -1).exception(PATIENCE) is None)
    wait_until(lambda: not executor.submit(abs, -1).exception(PATIENCE))


@pytest.mark.parametrize("name", ["processes", "loky"])
def test_a_pool_that_breaks_while_it_starts_a_worker_for_a_task_costs_nothing(executor, name, monkeypatch):
    pid = executor.submit(os.getpid).result()
    pool = executor._current.pool
    usual = pool.submit

    def submit(*args):
        doomed = usual(time.sleep, 3600)
        os.kill(pid, signal.SIGKILL)
        wait([doomed])
        raise OSError(9, "a pipe that the pool has closed meanwhile")

    monkeypatch.setattr(pool, "submit", submit)
    assert executor.submit(pow, 2, 5).result() == 32
    monkeypatch.setattr(executor._current.pool, "submit", _no_descriptors_left)
    with pytest.raises(OSError, match="too many open files"):
        executor.submit(pow, 2, 5)


@pytest.mark.parametrize("name", ["processes"])
def test_a_worker_that_starts_while_its_pool_breaks_ends_with_it(name, monkeypatch):
    executor = make(name)
    pid = executor.submit(os.getpid).result()
    broken = executor._current
    wait_until(lambda: broken.pool._idle_worker_semaphore._value, "the pool to know that its worker is idle")
    executor.submit(time.sleep, 3600)
    usual = _start._popen

    def popen(*args):
        started = usual(*args)
        os.kill(pid, signal.SIGKILL)
        # By then the pool has told all workers that it knows of to end, and is about to wait for them.
        wait_until(lambda: broken.pool._call_queue._closed)
        return started

    with monkeypatch.context() as patch:
        patch.setattr(_start, "_popen", popen)
        assert isinstance(executor.submit(time.sleep, 3600).exception(PATIENCE), WorkerLostError)
    assert executor.submit(pow, 2, 5).result(PATIENCE) == 32
    ended = threading.Thread(target=executor.shutdown, daemon=True)
    ended.start()
    ended.join(PATIENCE)
    assert not ended.is_alive()
    assert not workers_of()


def _no_descriptors_left(*args):
    raise OSError(24, "too many open files")


@pytest.mark.parametrize("name", OWN_POOL)
def test_on_our_own_pool_only_the_task_of_the_lost_worker_is_lost(name, tmp_path):
    """SIGKILL under load: exact counts of what was started, what was lost and what was done."""
    ran = tmp_path / "ran"
    ran.mkdir()
    go = tmp_path / "go"
    with make(name, 3) as executor:
        held = [executor.submit(hold, tmp_path / f"started{i}", go) for i in range(3)]
        pids = [read_pid(tmp_path / f"started{i}") for i in range(3)]
        waiting = [executor.submit(note, ran) for _ in range(300)]
        os.kill(pids[1], signal.SIGKILL)
        error = held[1].exception(PATIENCE)
        assert isinstance(error, WorkerLostError)
        assert (error.pid, error.exitcode) == (pids[1], -9)
        assert len(wait(waiting, PATIENCE).done) == 300  # by the fresh worker: the others are held
        assert all(future.exception() is None for future in waiting)
        assert count(ran) == 300
        assert not held[0].done()
        assert not held[2].done()
        go.touch()
        assert [held[0].result(PATIENCE), held[2].result(PATIENCE)] == [pids[0], pids[2]]


@pytest.mark.parametrize("name", OWN_POOL)
def test_under_random_kills_each_task_ends_once_and_lost_ones_are_the_killed_ones(name, tmp_path):
    ran = tmp_path / "ran"
    ran.mkdir()
    resolved = []
    with make(name, 2) as executor:
        futures = []
        for i in range(60):
            task = (end, "kill") if i % 6 == 3 else (note, ran)
            futures.append(executor.submit(*task))
            futures[-1].add_done_callback(resolved.append)
        assert len(wait(futures, PATIENCE).done) == 60
    lost = [i for i, future in enumerate(futures) if future.exception() is not None]
    assert lost == [i for i in range(60) if i % 6 == 3]
    assert len({futures[i].exception().pid for i in lost}) == 10
    assert len(resolved) == 60
    assert count(ran) == 50


@pytest.mark.parametrize("name", OWN_POOL)
def test_a_worker_whose_child_keeps_its_pipes_open_is_noticed_all_the_same(name, tmp_path):
    def leave_a_child(path):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        Path(path).write_text(str(pid))
        os.kill(os.getpid(), signal.SIGKILL)

    with make(name) as executor:
        try:
            error = executor.submit(leave_a_child, tmp_path / "child").exception(PATIENCE)
            assert isinstance(error, WorkerLostError)
            assert executor.submit(abs, -1).result(PATIENCE) == 1
        finally:
            os.kill(read_pid(tmp_path / "child"), signal.SIGKILL)


@pytest.mark.parametrize("name", OWN_POOL)
def test_a_stopped_worker_holds_up_neither_a_large_task_nor_the_others_nor_shutdown(name, tmp_path):
    with make(name) as executor:
        pid = executor.submit(os.getpid).result(PATIENCE)
        os.kill(pid, signal.SIGSTOP)
        large = executor.submit(len, bytes(50_000_000))  # to the stopped one: it was the idle one
        assert [executor.submit(abs, -i).result(PATIENCE) for i in range(20)] == list(range(20))
        assert not large.done()
        os.kill(pid, signal.SIGCONT)
        assert large.result(PATIENCE) == 50_000_000


@pytest.mark.parametrize("name", HEALING)
def test_stop_running_stops_at_once_and_leaves_the_executor_usable(executor, name, tmp_path):
    futures = [executor.submit(hold, tmp_path / f"started{i}", tmp_path / "never") for i in range(2)]
    pids = [read_pid(tmp_path / f"started{i}") for i in range(2)]
    executor.stop_running()
    for future in futures:
        with pytest.raises(WorkerLostError, match="stop_running"):
            future.result(PATIENCE)
    wait_until(lambda: not any(alive(pid) for pid in pids), "the workers' end")
    assert executor.submit(abs, -1).result(PATIENCE) == 1


@pytest.mark.parametrize("name", HEALING)
def test_stop_running_without_work_does_nothing(executor, name):
    executor.stop_running()
    pid = executor.submit(os.getpid).result(PATIENCE)
    executor.stop_running()
    assert executor.submit(abs, -1).result(PATIENCE) == 1
    if name in OWN_POOL:
        assert executor.submit(os.getpid).result(PATIENCE) == pid


@pytest.mark.parametrize("name", OWN_POOL)
def test_on_our_own_pool_stop_running_spares_what_waits(name, tmp_path):
    ran = tmp_path / "ran"
    ran.mkdir()
    with make(name) as executor:
        held = [executor.submit(hold, tmp_path / f"started{i}", tmp_path / "never") for i in range(2)]
        for i in range(2):
            read_pid(tmp_path / f"started{i}")
        waiting = [executor.submit(note, ran) for _ in range(10)]
        executor.stop_running()
        assert len(wait(waiting, PATIENCE).done) == 10
    assert all(isinstance(future.exception(), WorkerLostError) for future in held)
    assert count(ran) == 10


@pytest.mark.parametrize("name", OWN_POOL)
def test_a_finished_result_survives_the_worker_that_sent_it(name, tmp_path):
    def answer_and_die(pid, go):
        from anyfold._worker import serve

        serve._receive = lambda channel: os._exit(5)  # called when the answer has been sent
        hold(pid, go)
        return 7

    with make(name) as executor:
        held = executor.submit(hold, tmp_path / "started", tmp_path / "go")
        held.add_done_callback(lambda _: wait_until(lambda: not alive(read_pid(tmp_path / "pid"))))
        read_pid(tmp_path / "started")
        last = executor.submit(answer_and_die, tmp_path / "pid", tmp_path / "held up")
        read_pid(tmp_path / "pid")
        # The manager is busy with the callback of the first future until the worker of the second has ended.
        (tmp_path / "go").touch()
        held.result(PATIENCE)
        (tmp_path / "held up").touch()
        assert last.result(PATIENCE) == 7
        assert not alive(read_pid(tmp_path / "pid"))


@pytest.mark.parametrize("name", OWN_POOL)
def test_workers_that_cannot_start_fail_what_waits_with_the_reason(name, monkeypatch, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    executor = make(name)
    monkeypatch.undo()
    gone.rmdir()
    with executor:
        futures = [executor.submit(abs, -1) for _ in range(5)]
        for future in futures:
            with pytest.raises(WorkerLostError, match=r"be started: \d in a row(.|\n)*FileNotFoundError"):
                future.result(PATIENCE)
        gone.mkdir()
        assert executor.submit(abs, -1).result(PATIENCE) == 1


@pytest.mark.parametrize("name", OWN_POOL)
def test_an_abandoned_executor_finishes_its_work_and_lets_its_workers_go(name, tmp_path):
    executor = make(name)
    futures = [executor.submit(note, tmp_path) for _ in range(20)]
    del executor
    assert len(wait(futures, PATIENCE).done) == 20
    assert count(tmp_path) == 20
    wait_until_no_worker_is_left()
    wait_until(
        lambda: not [t for t in threading.enumerate() if t.name == "anyfold-pool"], "the manager's end"
    )
