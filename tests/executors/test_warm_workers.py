"""Workers are kept warm between calls, only while they would do the same, and not for ever."""

import os
import sys
import threading

import pytest
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import get_reusable_executor
from tests.executors.executor_helpers import (
    PATIENCE,
    alive,
    hold,
    read_pid,
    run_script,
    wait_until,
    workers_of,
)

from anyfold.executors import _warm, shutdown
from anyfold.executors._warm import borrow

KEPT = ["multiprocessing", "processes", "loky"]


pytestmark = pytest.mark.usefixtures("quick_fork_servers")


@pytest.fixture(autouse=True)
def nothing_warm():
    _warm._let_go(lambda warm: True)
    yield
    _warm._let_go(lambda warm: True)


def worker(backend="multiprocessing", **options):
    """Run one task on the one worker of a borrowed executor and return its process id."""
    with borrow(backend, 1, options) as executor:
        return executor.submit(os.getpid).result(PATIENCE)


@pytest.mark.parametrize("backend", KEPT)
def test_the_next_call_finds_the_same_worker(backend):
    assert worker(backend) == worker(backend)


@pytest.mark.parametrize("backend", ["serial", "threads", "joblib"])
def test_other_backends_are_closed_after_the_call(backend):
    with borrow(backend, 1) as executor:  # joblib runs what is for one worker in the caller
        executor.submit(abs, -1).result(PATIENCE)
    assert executor.closed
    assert not _warm._shelf.idle


def joblib_workers():
    """Run one task on the two workers of joblib's active backend and return their process ids."""
    before = set(workers_of())
    with borrow("joblib", 2) as executor:
        assert (executor.max_workers, executor.submit(abs, -1).result(PATIENCE)) == (2, 1)
        kept = set(workers_of()) if executor.is_current() else set()
    return kept or before


def test_joblibs_workers_stay_for_the_next_call_and_for_joblib_itself():
    first = joblib_workers()
    assert len(first) == 2
    assert joblib_workers() == first
    assert set(Parallel(2)(delayed(os.getpid)() for _ in range(4))) <= first
    assert joblib_workers() == first
    shutdown()
    assert not any(map(alive, first))


def test_joblibs_workers_are_those_of_the_configuration_of_the_call():
    first = joblib_workers()
    with parallel_config("multiprocessing"):
        others = joblib_workers()
        assert len(others) == 2
        assert joblib_workers() == others
    assert not first & others
    with parallel_config("loky", inner_max_num_threads=3):
        with borrow("joblib", 2) as executor:
            assert executor.submit(os.getenv, "OMP_NUM_THREADS").result(PATIENCE) == "3"
    with parallel_config("threading"), borrow("joblib", 2) as executor:
        assert executor.submit(os.getpid).result(PATIENCE) == os.getpid()
    assert len(joblib_workers()) == 2


def test_what_joblib_does_with_its_workers_in_between_is_noticed(monkeypatch):
    first = joblib_workers()
    Parallel(3)(delayed(abs)(n) for n in range(3))  # of the same pool
    assert len(joblib_workers()) == 2
    first = joblib_workers()
    os.kill(min(first), 9)
    wait_until(lambda: not any(map(alive, first)), "the end of the pool")
    second = joblib_workers()
    assert len(second) == 2
    monkeypatch.setenv("SOMETHING_NEW", "1")
    with borrow("joblib", 3) as executor:
        assert executor.submit(os.getenv, "SOMETHING_NEW").result(PATIENCE) == "1"
    assert not any(map(alive, second))


def test_a_pool_of_joblibs_that_is_the_users_own_stays():
    users = set(Parallel(2)(delayed(os.getpid)() for _ in range(4)))
    assert users <= joblib_workers()
    shutdown()
    assert all(map(alive, users))
    get_reusable_executor().shutdown()


def test_a_fork_uses_none_of_joblibs_workers_of_its_parent():
    parents = joblib_workers()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            own = {*joblib_workers(), *Parallel(2)(delayed(os.getpid)() for _ in range(4))}
            os.write(write, str(len(own) == 2 and not own & parents).encode())
            shutdown()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        assert answer.read() == "True"
    os.waitpid(pid, 0)
    assert joblib_workers() == parents


def test_other_options_or_numbers_of_workers_are_another_executor():
    first = worker()
    assert worker(start_method="spawn") != first
    with borrow("multiprocessing", 2) as executor:
        assert executor.max_workers == 2
    assert worker() == first


def test_the_start_method_of_the_settings_is_an_option_like_others():
    with borrow("multiprocessing", 1, {}, "spawn") as executor:
        assert executor.start_method == "spawn"
    with borrow("multiprocessing", 1, {"start_method": "fork"}, "spawn") as executor:
        assert executor.start_method == "fork"
    with borrow("loky", 1, {}, "spawn") as executor:
        assert executor.submit(abs, -1).result(PATIENCE) == 1


def test_options_that_cannot_be_compared_are_never_shared():
    from anyfold.executors import register_backend, registry
    from anyfold.executors.multiprocessing import MultiprocessingExecutor

    register_backend("listed", lambda max_workers, what: MultiprocessingExecutor(max_workers))
    try:
        assert worker("listed", what=[1]) != worker("listed", what=[1])
        assert not _warm._shelf.idle
    finally:
        registry._backends.pop("listed")


def test_what_a_fork_cannot_stand_is_let_go_before_it():
    from anyfold.executors import register_backend, registry
    from anyfold.executors.multiprocessing import MultiprocessingExecutor

    class Connected(MultiprocessingExecutor):
        survives_fork = False

    register_backend("connected", Connected)
    try:
        pids = worker("connected"), worker()
        pid = os.fork()
        if pid == 0:
            os._exit(alive(pids[0]))
        assert os.waitpid(pid, 0) == (pid, 0)
        assert worker() == pids[1]
    finally:
        registry._backends.pop("connected")


def test_two_runs_at_a_time_never_share(tmp_path):
    with borrow("multiprocessing", 1) as one:
        first = one.submit(os.getpid).result(PATIENCE)
        second = worker()
    assert first != second
    assert worker() in (first, second)


def test_another_working_directory_needs_other_workers(tmp_path, monkeypatch):
    first = worker()
    monkeypatch.chdir(tmp_path)
    with borrow("multiprocessing", 1) as executor:
        assert executor.submit(os.getcwd).result(PATIENCE) == str(tmp_path)
        assert executor.submit(os.getpid).result(PATIENCE) != first
    wait_until(lambda: not alive(first), "the end of the stale worker")


@pytest.mark.parametrize("backend", KEPT)
def test_another_environment_needs_other_workers(backend, monkeypatch):
    first = worker(backend)
    monkeypatch.setenv("SOMETHING_NEW", "1")
    with borrow(backend, 1) as executor:
        assert executor.submit(os.getenv, "SOMETHING_NEW").result(PATIENCE) == "1"
        assert executor.submit(os.getpid).result(PATIENCE) != first
    monkeypatch.delenv("SOMETHING_NEW")
    with borrow(backend, 1) as executor:
        assert executor.submit(os.getenv, "SOMETHING_NEW").result(PATIENCE) is None


def test_another_path_needs_other_workers(tmp_path, monkeypatch):
    first = worker()
    monkeypatch.syspath_prepend(tmp_path)
    assert worker() != first


def test_an_edited_local_module_needs_other_workers(tmp_path, monkeypatch):
    import importlib

    source = tmp_path / "edited_by_the_user.py"
    source.write_text("def answer(): return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = importlib.import_module("edited_by_the_user")
    monkeypatch.setitem(sys.modules, "edited_by_the_user", module)
    os.utime(source, (1e9, 1e9))

    def ask():
        with borrow("multiprocessing", 1) as executor:
            return executor.submit(module.answer).result(PATIENCE), executor.submit(os.getpid).result(
                PATIENCE
            )

    first = ask()
    assert first[0] == 1
    assert ask() == first
    source.write_text("def answer(): return 2\n")
    os.utime(source, (1e9 + 10, 1e9 + 10))
    importlib.reload(module)
    assert ask()[0] == 2


def test_a_module_that_changed_before_it_was_known_needs_other_workers(tmp_path, monkeypatch):
    """A worker may have imported it by itself, before it changed."""
    import importlib

    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "imported_by_the_worker.py"
    source.write_text("value = 1\n")
    os.utime(source, (1e9, 1e9))

    def look():
        with borrow("multiprocessing", 1) as executor:
            return executor.submit(eval, "__import__('imported_by_the_worker').value").result(PATIENCE)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert look() == 1
    source.write_text("value = 2\n")
    importlib.import_module("imported_by_the_worker")
    try:
        assert look() == 2
    finally:
        sys.modules.pop("imported_by_the_worker")


def test_idle_workers_are_let_go_after_a_while(monkeypatch):
    monkeypatch.setattr(_warm, "IDLE_SECONDS", 0.05)
    pid = worker()
    wait_until(lambda: not alive(pid), "the end of the idle worker")
    assert worker() != pid


def test_shutdown_lets_them_go_at_once_and_those_in_use_when_they_are_free(tmp_path):
    idle = worker()
    with borrow("multiprocessing", 2) as executor:
        used = executor.submit(os.getpid).result(PATIENCE)
        shutdown()
        assert not alive(idle)
        assert executor.submit(abs, -1).result(PATIENCE) == 1
    assert not alive(used)
    assert not _warm._shelf.idle


def test_a_run_that_fails_leaves_no_work_behind(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with borrow("multiprocessing", 1) as executor:
            executor.submit(hold, tmp_path / "started", tmp_path / "never")
            pid = read_pid(tmp_path / "started")
            raise ZeroDivisionError
    assert not alive(pid)
    assert executor.closed


def test_many_threads_may_borrow():
    pids = []

    def run():
        for _ in range(5):
            with borrow("multiprocessing", 1) as executor:
                pids.append(executor.submit(os.getpid).result(PATIENCE))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(pids) == 20
    assert len(set(pids)) <= 4


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os.fork() or os._exit(0); os.wait()"])
def test_joblibs_warm_workers_end_with_the_program(end, tmp_path):
    code, out, err = run_script(
        tmp_path,
        f"""
        import os
        from anyfold.executors._warm import borrow
        from psutil import Process
        with borrow("joblib", 2) as executor:
            executor.submit(abs, -1).result()
        print(*(child.pid for child in Process().children()), flush=True)
        {end}
        """,
    )
    assert (code, err) == (-9 if "kill" in end else 0, "")
    wait_until(lambda: not any(alive(int(pid)) for pid in out.split()), "the workers' end")


@pytest.mark.parametrize("backend", KEPT)
@pytest.mark.parametrize("end", ["pass", "raise SystemExit(0)", "os.fork() or os._exit(0); os.wait()"])
def test_warm_workers_end_with_the_program(backend, end, tmp_path):
    code, out, err = run_script(
        tmp_path,
        f"""
        import os
        from anyfold.executors import _start
        from anyfold.executors._warm import borrow
        del _start._PRELOAD[1:]
        with borrow({backend!r}, 1) as executor:
            print(executor.submit(os.getpid).result())
        {end}
        """,
    )
    assert (code, err) == (0, "")
    wait_until(lambda: not alive(int(out)), "the worker's end")


def test_a_fork_does_not_use_the_workers_of_its_parent():
    parents = worker()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(
                write, str(worker(start_method="spawn") != parents and not _warm._shelf.idle[1:]).encode()
            )
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        assert answer.read() == "True"
    os.waitpid(pid, 0)
    assert worker() == parents
