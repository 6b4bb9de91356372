"""Whole programs, without a main guard, without stdin, failing, killed: nothing runs twice, nothing stays."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from tests.executors.executor_helpers import (
    HEALING,
    OWN_POOL,
    PARALLEL,
    PATIENCE,
    alive,
    count,
    make,
    read_pid,
    run_script,
    start_script,
    wait_until,
)

OPEN = """
    import os, sys, pathlib
    sys.path.insert(0, {root!r})
    from tests.executors.executor_helpers import make, preload_nothing
    preload_nothing()
    pathlib.Path(f"ran-{{os.getpid()}}").touch()
"""


ROOT = str(Path(__file__).resolve().parents[2])
ONE_OF_EACH = ["multiprocessing-forkserver", "processes-forkserver", "loky", "joblib-loky"]
UNSHARED = [name for name in HEALING if not name.startswith("joblib")]
WATCHED_AS_A_WHOLE = ("multiprocessing-forkserver", "processes-forkserver", "loky", "joblib-loky")
"""The same is done to them by tests/test_leftovers.py and tests/test_interrupts.py."""


def source(body):
    return OPEN.format(root=ROOT) + body


def descendants(pid):
    return [process.pid for process in psutil.Process(pid).children(recursive=True)]


def all_gone(pids):
    return not any(alive(pid) for pid in pids)


UNGUARDED = """
    class Point:
        def __init__(self, x):
            self.x = x

    def double(point):
        if not isinstance(point, Point):
            raise TypeError("another Point")
        return Point(2 * point.x)

    class OwnError(Exception):
        pass

    def fail():
        raise OwnError("mine")

    executor = make(sys.argv[1])
    results = [executor.submit(double, Point(i)) for i in range(4)]
    assert [type(future.result()) for future in results] == [Point] * 4
    assert [future.result().x for future in results] == [0, 2, 4, 6]
    assert executor.submit(lambda: os.getcwd()).result() == os.getcwd()
    assert executor.submit(lambda: sys.argv[1:]).result() == sys.argv[1:]
    try:
        executor.submit(fail).result()
    except OwnError as error:
        print("caught", error)
    import psutil
    print(*[child.pid for child in psutil.Process().children(recursive=True)])
"""


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        *((name, "pass") for name in PARALLEL),
        *((name, ending) for name in ONE_OF_EACH for ending in ("raise ValueError('end')", "del executor")),
        (OWN_POOL[0], "executor.shutdown()"),
    ],
)
def test_a_script_without_a_main_guard_runs_once_and_leaves_nothing(name, ending, tmp_path):
    code, out, err = run_script(tmp_path, source(UNGUARDED + f"    {ending}\n"), name)
    assert out.splitlines()[0:1] == ["caught mine"], err
    if ending.startswith("raise"):
        assert code == 1
        assert err.splitlines()[-1] == "ValueError: end"
        assert err.count("Traceback") == 1, err
    else:
        assert (code, err) == (0, "")
    assert len(list(tmp_path.glob("ran-*"))) == 1
    pids = [int(pid) for pid in out.splitlines()[1].split()] if len(out.splitlines()) > 1 else []
    wait_until(lambda: all_gone(pids), f"the end of {pids}")


@pytest.mark.parametrize("name", PARALLEL)
def test_work_that_is_left_when_the_script_ends_is_done(name, tmp_path):
    body = """
    from tests.executors.executor_helpers import note
    os.mkdir("done")
    executor = make(sys.argv[1])
    for _ in range(20):
        executor.submit(note, "done")
    """
    assert run_script(tmp_path, source(body), name) == (0, "", "")
    assert count(tmp_path / "done") == 20


@pytest.mark.parametrize("name", HEALING)
def test_standard_input_may_be_closed(name, tmp_path):
    body = """
    os.close(0)
    with make(sys.argv[1]) as executor:
        assert [executor.submit(abs, -i).result() for i in range(8)] == list(range(8))
        try:
            executor.submit(os._exit, 3).result()
        except Exception as error:
            print(type(error).__name__)
        print(executor.submit(abs, -1).result())
    """
    code, out, err = run_script(tmp_path, source(body), name)
    assert (code, out.split(), err) == (0, ["WorkerLostError", "1"], "")


@pytest.mark.parametrize(
    ("name", "how"),
    [*((name, "-c") for name in UNSHARED), *((OWN_POOL[0], how) for how in ("stdin", "-m"))],
)
def test_the_main_module_need_not_be_a_file(name, how, tmp_path):
    program = "\n".join(
        [
            f"import sys; sys.path.insert(0, {ROOT!r})",
            "open('ran', 'a').write('x')",
            "from tests.executors.executor_helpers import make, preload_nothing",
            "preload_nothing()",
            "class Here: pass",
            f"with make({name!r}) as executor:",
            "    assert type(executor.submit(lambda: Here()).result()) is Here",
            "print('fine')",
        ]
    )
    (tmp_path / "program.py").write_text(program)
    command, given = {
        "-c": (["-c", program], None),
        "stdin": (["-"], program),
        "-m": (["-m", "program"], None),
    }[how]
    done = subprocess.run(
        [sys.executable, *command],
        input=given,
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
    assert (tmp_path / "ran").read_text() == "x"


@pytest.mark.parametrize("name", [name for name in HEALING if name not in WATCHED_AS_A_WHOLE])
def test_workers_do_not_outlive_a_killed_driver(name, tmp_path):
    body = """
    from tests.executors.executor_helpers import hold
    executor = make(sys.argv[1])
    futures = [executor.submit(hold, f"started{i}", "never") for i in range(2)]
    futures[0].result()
    """
    with start_script(tmp_path, source(body), name) as driver:
        for i in range(2):
            read_pid(tmp_path / f"started{i}")
        pids = descendants(driver.pid)
        assert len(pids) >= 2
        driver.send_signal(signal.SIGKILL)
        driver.communicate(timeout=PATIENCE)
    wait_until(lambda: all_gone(pids), f"the end of {pids}")


@pytest.mark.parametrize(
    "pool",
    ["concurrent.futures.ProcessPoolExecutor(2)", "loky.ProcessPoolExecutor(2)"],
)
def test_nor_do_those_of_a_pool_of_the_users(pool, tmp_path):
    body = f"""
    import concurrent.futures, loky
    from anyfold.executors import as_executor
    from tests.executors.executor_helpers import hold
    executor = as_executor({pool})
    futures = [executor.submit(hold, f"started{{i}}", "never") for i in range(2)]
    futures[0].result()
    """
    with start_script(tmp_path, source(body)) as driver:
        for i in range(2):
            read_pid(tmp_path / f"started{i}")
        pids = descendants(driver.pid)
        driver.send_signal(signal.SIGKILL)
        driver.communicate(timeout=PATIENCE)
    wait_until(lambda: all_gone(pids), f"the end of {pids}")


@pytest.mark.parametrize("name", [*OWN_POOL, "processes-forkserver"])
def test_nor_does_a_worker_that_holds_the_interpreter_lock(name, tmp_path):
    body = """
    import ctypes
    def hold_lock(path):
        pathlib.Path(path).write_text(str(os.getpid()))
        ctypes.PyDLL(None).sleep(1000)
    executor = make(sys.argv[1], 1)
    executor.submit(hold_lock, "started").result()
    """
    with start_script(tmp_path, source(body), name) as driver:
        read_pid(tmp_path / "started")
        pids = descendants(driver.pid)
        driver.send_signal(signal.SIGKILL)
        driver.communicate(timeout=PATIENCE)
    wait_until(lambda: all_gone(pids), f"the end of {pids}")


@pytest.fixture
def short_folder():
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("name", "end"),
    [*((name, "os.kill(os.getpid(), 9)") for name in UNSHARED), (OWN_POOL[0], "pass"), ("loky", "pass")],
)
def test_no_temporary_file_is_left_even_by_a_killed_driver(name, end, tmp_path, short_folder):
    folder = short_folder  # the path of a socket has at most 107 characters
    body = f"""
    executor = make(sys.argv[1])
    executor.submit(abs, -1).result()
    {end}
    """
    run_script(tmp_path, source(body), name, env={**os.environ, "TMPDIR": str(folder)})
    wait_until(lambda: not list(folder.iterdir()), f"{folder} to be empty")


@pytest.mark.parametrize("name", ["multiprocessing-spawn", "processes-spawn"])
def test_an_interrupt_reaches_the_driver_and_not_the_workers(name, tmp_path):
    body = """
    from tests.executors.executor_helpers import hold
    executor = make(sys.argv[1])
    futures = [executor.submit(hold, f"started{i}", "go") for i in range(2)]
    try:
        futures[0].result()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        pathlib.Path("go").touch()
        print(all(future.exception() is None for future in futures))
    """
    with start_script(tmp_path, source(body), name, start_new_session=True) as driver:
        for i in range(2):
            read_pid(tmp_path / f"started{i}")
        os.killpg(driver.pid, signal.SIGINT)
        out, err = driver.communicate(timeout=PATIENCE)
    assert (out.split(), err) == (["interrupted", "True"], "")


def test_the_users_fork_server_and_start_method_are_left_alone(tmp_path):
    body = """
    import multiprocessing
    from multiprocessing import forkserver
    multiprocessing.set_forkserver_preload(["json"])
    with make("multiprocessing-forkserver") as executor:
        executor.submit(abs, -1).result()
    assert forkserver._forkserver._preload_modules == ["json"]
    assert forkserver._forkserver._forkserver_pid is None
    assert multiprocessing.get_start_method(allow_none=True) is None
    multiprocessing.set_start_method("spawn")
    print("fine")
    """
    assert run_script(tmp_path, source(body)) == (0, "fine\n", "")


def test_an_executor_can_be_made_inside_a_worker():
    def nested():
        with make("multiprocessing-forkserver", 1) as executor:
            return os.getpid(), executor.submit(os.getpid).result(PATIENCE)

    with make("multiprocessing-forkserver", 1) as executor:
        outer, inner = executor.submit(nested).result(PATIENCE)
    assert len({outer, inner, os.getpid()}) == 3
    wait_until(lambda: all_gone([outer, inner]))
