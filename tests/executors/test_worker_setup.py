"""What a worker takes over from its caller, and how it ends."""

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.executors.executor_helpers import (
    OWN_POOL,
    PATIENCE,
    alive,
    hold,
    make,
    read_pid,
    run_script,
    wait_until,
)

from anyfold._worker.boot import capture_setup
from anyfold.executors import _pool_manager, _start

pytestmark = pytest.mark.usefixtures("quick_fork_servers")


def test_the_setup_is_the_callers_state_when_it_is_captured(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE", "yes")
    setup = capture_setup(kill_with_parent_thread=True)
    assert setup.cwd == str(tmp_path)
    assert setup.environ["HERE"] == "yes"
    assert setup.sys_path == tuple(sys.path)
    assert setup.driver_pid == os.getpid()
    with pytest.raises(AttributeError):
        setup.cwd = "elsewhere"


@pytest.mark.parametrize("name", OWN_POOL)
def test_workers_are_as_the_caller_was_when_the_executor_was_made(name, monkeypatch, tmp_path):
    monkeypatch.setenv("BEFORE", "1")
    monkeypatch.setattr(sys, "argv", ["program", "--fast"])
    with make(name) as executor:
        cwd = Path.cwd()
        monkeypatch.delenv("BEFORE")
        monkeypatch.setenv("AFTER", "1")
        monkeypatch.chdir(tmp_path)
        names = "BEFORE", "AFTER"
        assert executor.submit(lambda: [os.environ.get(name) for name in names]).result(PATIENCE) == [
            "1",
            None,
        ]
        assert executor.submit(Path.cwd).result(PATIENCE) == cwd
        assert executor.submit(lambda: sys.argv).result(PATIENCE) == ["program", "--fast"]


@pytest.mark.parametrize("name", OWN_POOL)
def test_workers_of_one_pool_do_not_draw_the_same_random_numbers(name, tmp_path):
    def draw(mine, others):
        mine.touch()
        wait_until(others.exists)
        return np.random.random()

    one, two = tmp_path / "one", tmp_path / "two"
    with make(name) as executor:
        futures = [executor.submit(draw, one, two), executor.submit(draw, two, one)]
        first, second = (future.result(PATIENCE) for future in futures)
    assert first != second


@pytest.mark.parametrize("name", OWN_POOL)
def test_a_worker_ends_on_sigterm_and_ignores_interrupts(name):
    with make(name) as executor:
        signals = executor.submit(
            lambda: (
                signal.getsignal(signal.SIGTERM),
                signal.getsignal(signal.SIGINT),
                signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            )
        ).result(PATIENCE)
        assert signals == (signal.SIG_DFL, signal.SIG_IGN, set())


@pytest.mark.parametrize("name", OWN_POOL)
def test_workers_hold_no_pipe_of_their_siblings(name, tmp_path):
    """Each has its own end of its own pipe, however many workers there are."""

    def sockets(started=None, go=None):
        if started is not None:
            hold(started, go)
        found = set()
        for entry in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()))
        return {link for link in found if link.startswith("socket:")}

    callers = sockets()
    with make(name, 3) as executor:
        futures = [executor.submit(sockets, tmp_path / f"started{i}", tmp_path / "go") for i in range(3)]
        for i in range(3):
            read_pid(tmp_path / f"started{i}")
        (tmp_path / "go").touch()
        channels = [future.result(PATIENCE) - callers for future in futures]
    assert [len(channel) for channel in channels] == [1, 1, 1]
    assert len(set.union(*channels)) == 3


@pytest.mark.parametrize("name", OWN_POOL)
def test_a_worker_that_will_not_end_is_killed(name, monkeypatch):
    monkeypatch.setattr(_pool_manager, "_GRACE", 0.2)

    def leave_a_thread():
        threading.Thread(target=threading.Event().wait).start()
        return os.getpid()

    executor = make(name)
    pid = executor.submit(leave_a_thread).result(PATIENCE)
    executor.shutdown()
    assert not alive(pid)


def test_a_new_environment_gets_a_fork_server_whose_libraries_have_seen_it(monkeypatch):
    with make("multiprocessing-forkserver", 1) as executor:
        first = executor.submit(os.getppid).result(PATIENCE)
    monkeypatch.setenv("ANYFOLD_RETRIES", "1")  # is read by calls, not by libraries
    with make("multiprocessing-forkserver", 1) as executor:
        assert executor.submit(os.getppid).result(PATIENCE) == first
        assert executor.submit(os.getenv, "ANYFOLD_RETRIES").result(PATIENCE) == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with make("multiprocessing-forkserver", 1) as executor:
        assert executor.submit(os.getppid).result(PATIENCE) != first
    wait_until(lambda: not alive(first), "the end of the old fork server")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_fork_server_is_replaced(number):
    with make("multiprocessing-forkserver", 1) as executor:
        server = executor.submit(os.getppid).result(PATIENCE)
        worker = executor.submit(os.getpid).result(PATIENCE)
        os.kill(server, number)
        wait_until(lambda: not alive(worker), "the end of its worker")
        wait_until(lambda: executor.submit(abs, -1).exception(PATIENCE) is None)
        assert executor.submit(os.getppid).result(PATIENCE) != server


def test_a_fork_server_that_is_about_to_end_costs_no_start(monkeypatch):
    with make("multiprocessing-forkserver", 1) as executor:
        server = executor.submit(os.getppid).result(PATIENCE)
    connect = _start._ForkServer.connect_to_new_process

    def refused(self, descriptors):
        if self.pid == server:
            os.kill(server, signal.SIGKILL)
            raise ConnectionRefusedError("it has closed its socket, and is not gone yet")
        return connect(self, descriptors)

    monkeypatch.setattr(_start._ForkServer, "connect_to_new_process", refused)
    with make("multiprocessing-forkserver", 1) as executor:
        assert executor.submit(os.getppid).result(PATIENCE) != server


def test_the_fork_server_ends_when_it_is_told_to():
    with make("multiprocessing-forkserver", 1) as executor:
        server = executor.submit(os.getppid).result(PATIENCE)
    _start.stop_fork_server(PATIENCE)
    assert not alive(server)


def test_the_preloaded_modules_come_from_where_the_caller_would_take_them(tmp_path):
    """A file in the working directory does not stand in for an installed package."""
    (tmp_path / "numpy.py").write_text("raise SystemError('not this one')")
    (tmp_path / "elsewhere").mkdir()
    code, out, err = run_script(
        tmp_path,
        """
        import os, sys
        sys.path.remove(os.path.dirname(os.path.abspath(__file__)))
        from anyfold.executors import get_executor
        with get_executor("multiprocessing", 1, start_method="forkserver") as executor:
            print(executor.submit(lambda: "sklearn.model_selection" in sys.modules).result())
        """,
    )
    assert (code, out, err) == (0, "True\n", "")
