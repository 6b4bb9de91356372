"""A Dask cluster that the user started, on hosts that share neither files nor processes with the caller."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Client
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import KFold

import anyfold as af
from anyfold.errors import InvalidSettingError, WorkerLostError
from anyfold.executors.dask import executor_of

ROOT = str(Path(__file__).resolve().parents[2])
PYTHONPATH = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
PATIENCE = 60  # seconds; a hang, not slowness
X = np.random.default_rng(0).normal(size=(3000, 50))
Y = (X[:, 0] > 0).astype(int)


class Means(ClassifierMixin, BaseEstimator):
    """Looks at every number of its data."""

    def __init__(self, fails=False):
        self.fails = fails

    def fit(self, X, y):
        if self.fails:
            raise ArithmeticError("as told")
        self.classes_ = np.unique(y)
        self.mean_ = X.sum()
        return self

    def predict(self, X):
        return self.classes_[(X.sum(axis=1) > self.mean_ / 1e4).astype(int)]


class DiesOnce(Means):
    """Kills its first worker."""

    def __init__(self, folder=""):
        self.folder = folder

    def fit(self, X, y):
        self.fails = False
        with contextlib.suppress(FileExistsError):
            (Path(self.folder) / "died").touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(X, y)


def of_another_host(command):
    """Return the command of a process that sees no other processes and no files that they hold open."""
    separate = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
    probe = subprocess.run([*separate, "true"], capture_output=True) if shutil.which("unshare") else None
    assert probe is not None and probe.returncode == 0, "these tests need namespaces of processes"
    return [*separate, *command.split()]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and two workers, started from the shell, each with a temporary folder of its own."""
    dask = str(Path(sys.executable).with_name("dask"))
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    commands = [
        [
            dask,
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            str(file),
        ]
    ]
    for number in (2, 3):
        (folder / f"worker{number}").mkdir()
        commands.append(
            of_another_host(
                f"{dask} worker --scheduler-file {file} --host 127.0.0.{number} --nthreads 2 --no-dashboard "
                f"--local-directory {folder}/worker{number}"
            )
        )
    with contextlib.ExitStack() as stack:
        for number, command in enumerate(commands):
            temporary = folder / f"tmp{number}"
            temporary.mkdir()
            log = stack.enter_context((folder / f"log{number}").open("w"))
            process = subprocess.Popen(
                command,
                env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": PYTHONPATH},
                stdout=log,
                stderr=log,
            )
            stack.callback(stop, process)
        with Client(scheduler_file=str(file), set_as_default=False, timeout=PATIENCE) as client:
            client.wait_for_workers(2, timeout=PATIENCE)
            yield client


def stop(process):
    started = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for each in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


@pytest.fixture
def executor(cluster):
    with af.get_executor("dask", address=cluster.scheduler.address) as executor:
        yield executor


def scores_of(result):
    return {name: result[name]["test_score"].tobytes() for name in result}


def test_data_crosses_to_each_host_once_and_gives_the_serial_numbers(executor, monkeypatch):
    crossed = []
    run = executor._client.run

    def counting(function, *args, workers=None, **kwargs):
        if function.__name__ == "write_copy":
            crossed.append((sorted(worker.split(":")[1] for worker in workers), len(args[2])))
        return run(function, *args, workers=workers, **kwargs)

    monkeypatch.setattr(executor._client, "run", counting)
    folds = af.Folds(X, Y, cv=4)
    models = {f"means{i}": Means() for i in range(5)}
    expected = scores_of(af.run_cv(models, folds, backend="serial"))
    for _ in range(2):
        assert scores_of(af.run_cv(models, folds, backend=executor)) == expected
    data = [(hosts, size) for hosts, size in crossed if size >= X.nbytes]
    assert [hosts for hosts, _ in data] == [["//127.0.0.2", "//127.0.0.3"]]


def test_a_worker_that_dies_costs_no_result(executor, tmp_path):
    folds = af.Folds(X, Y, cv=KFold(4))
    models = {"dies": DiesOnce(str(tmp_path)), "means": Means()}
    result = af.run_cv(models, folds, backend=executor, retries=1)
    assert (tmp_path / "died").exists()
    serial = af.run_cv(models, folds, backend="serial")
    assert scores_of(result) == scores_of(serial)


def test_the_cluster_is_alive_after_runs_and_after_errors(cluster, executor):
    with pytest.raises(ArithmeticError, match="as told"):
        af.run_cv(Means(fails=True), af.Folds(X, Y, cv=3), backend=executor, error_score="raise")
    executor.shutdown()
    assert cluster.submit(pow, 2, 5).result(PATIENCE) == 32


def test_a_worker_process_with_two_threads_runs_one_task_at_a_time(executor, tmp_path):
    def enter(name):
        import os

        process = f"{Path('/proc/self/ns/pid').stat().st_ino}-{os.getpid()}"
        before = len(list(tmp_path.glob(f"{process}-*")))
        mine = tmp_path / f"{process}-{name}"
        mine.touch()
        sum(range(200_000))
        mine.unlink()
        return before

    executor.max_workers = executor._window = 4
    alone = [executor.submit(enter, str(i)) for i in range(40)]
    assert [future.result(PATIENCE) for future in alone] == [0] * 40


def test_what_a_task_leaves_to_the_collector_does_not_delay_the_next_one(executor):
    def no_collector():
        import gc

        from anyfold.executors import _dask_worker

        gc.disable()
        _dask_worker._FETCH_SECONDS = 10 * PATIENCE

    def fails():
        try:
            raise ArithmeticError("as told")
        except ArithmeticError as error:
            kept = error  # refers to this frame, which refers to those of Dask with the answer
            raise kept  # noqa: B904

    def as_before():
        import gc

        from anyfold.executors import _dask_worker

        gc.enable()
        _dask_worker._FETCH_SECONDS = 5.0

    executor._client.run(no_collector)
    try:
        for _ in range(6):
            assert isinstance(executor.submit(fails).exception(PATIENCE), ArithmeticError)
    finally:
        executor._client.run(as_before)


def test_results_kept_on_one_host_are_read_on_others_and_by_the_caller(executor):
    shared = executor.submit_shared(np.arange, 1000.0).result(PATIENCE)
    seen = [executor.submit(lambda handle: handle.get().sum(), shared) for _ in range(8)]
    assert {future.result(PATIENCE) for future in seen} == {499500.0}
    assert shared.get().sum() == 499500.0


def test_the_current_client_is_used_and_stays_open(cluster):
    with cluster.as_current():
        result = af.run_cv(DummyClassifier(), af.Folds(X, Y, cv=3), backend="dask")
    assert not result.failures
    assert cluster.status == "running"
    assert cluster.submit(pow, 2, 5).result(PATIENCE) == 32


def test_a_client_has_one_executor_and_keeps_its_cluster(cluster):
    executor = executor_of(cluster)
    assert executor_of(cluster) is executor
    folds = af.Folds(X, Y, cv=3)
    result = af.run_cv(Means(), folds, backend=executor)
    assert scores_of(result) == scores_of(af.run_cv(Means(), folds, backend="serial"))
    assert cluster.submit(pow, 2, 5).result(PATIENCE) == 32


def test_the_address_may_come_from_the_environment(cluster, monkeypatch):
    monkeypatch.setenv("ANYFOLD_DASK_ADDRESS", cluster.scheduler.address)
    with af.get_executor("dask") as executor:
        assert executor.max_workers == 2
        assert executor.submit(pow, 2, 5).result(PATIENCE) == 32


def test_the_executor_of_a_client_can_be_passed_as_it_is_where_workers_are_on_this_host():
    folds = af.Folds(X, Y, cv=3)
    with (
        af.get_executor("dask", n_jobs=1) as local,
        Client(local._client.scheduler.address, set_as_default=False) as client,
    ):
        result = af.run_cv(Means(), folds, backend=client.get_executor(pure=False))
    assert scores_of(result) == scores_of(af.run_cv(Means(), folds, backend="serial"))


def test_a_worker_that_is_lost_is_replaced_however_long_that_takes(monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", "1ms")
    with af.get_executor("dask", n_jobs=1) as executor:
        error = executor.submit(os.kill, executor.submit(os.getpid).result(PATIENCE), signal.SIGKILL)
        assert isinstance(error.exception(PATIENCE), WorkerLostError)
        assert executor.submit(pow, 2, 5).result(PATIENCE) == 32


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    from anyfold.executors import _dask_connection

    monkeypatch.setattr(_dask_connection, "_SECONDS", 0.5)
    with pytest.raises(InvalidSettingError, match=r"tcp://127\.0\.0\.1:1.*dask scheduler"):
        af.get_executor("dask", address="tcp://127.0.0.1:1")


def test_models_that_fail_are_told_as_on_any_backend(executor):
    with pytest.warns(FitFailedWarning, match="3 of 6 tasks failed"):
        result = af.run_cv({"fails": Means(True), "means": Means()}, af.Folds(X, Y, cv=3), backend=executor)
    assert {failure.model for failure in result.failures} == {"fails"}
