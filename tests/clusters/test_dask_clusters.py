"""A Dask cluster of three hosts that the user started from the shell; two share nothing with the caller."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import KFold
from tests.clusters.hosts import PATIENCE, Host, interrupted, script

import anyfold as af
from anyfold.errors import InvalidSettingError, WorkerLostError
from anyfold.executors.dask import executor_of
from anyfold.testing._data_tests import DataTests
from anyfold.testing._identity import IdentityTests
from anyfold.testing._limits import wait_until
from anyfold.testing.probes import Dies, Hangs, Probe, count_invocations, hold, probe_data

X = np.random.default_rng(0).normal(size=(3000, 50))
Y = (X[:, 0] > 0).astype(int)


class Means(ClassifierMixin, BaseEstimator):
    """Looks at every number of its data."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.mean_ = X.sum()
        return self

    def predict(self, X):
        return self.classes_[(X.sum(axis=1) > self.mean_ / 1e4).astype(int)]


class HangsOnTheFourth(Means):
    """Never ends on the fourth host, and begins elsewhere only when that is gone."""

    def __init__(self, folder=""):
        self.folder = folder

    def fit(self, X, y):
        if os.environ["HOST"] == "4":
            hold(self.folder, "hangs", "never")
        while not (Path(self.folder) / "gone").exists():
            threading.Event().wait(0.01)
        return super().fit(X, y)


class DaskCluster:
    def __init__(self, folder):
        self.folder = folder
        self.hosts = {}
        self._start(0, "scheduler --host 127.0.0.1 --port 0 --no-dashboard --scheduler-file " + self.file, {})

    @property
    def file(self):
        return str(self.folder / "scheduler.json")

    def _start(self, number, arguments, environment, *, separate=False):
        folder = self.folder / f"host{number}"
        self.hosts[number] = Host(
            f"{script('dask')} {arguments}", folder, {"HOST": str(number), **environment}, separate=separate
        )
        return folder

    def start_worker(self, number, options=""):
        temp_dir = self.folder / f"host{number}-large"
        temp_dir.mkdir()
        self._start(
            number,
            f"worker --scheduler-file {self.file} --host 127.0.0.{number} --nworkers 1 --no-dashboard "
            f"--local-directory {temp_dir} {options}",
            {"ANYFOLD_TEMP_DIR": str(temp_dir)},
            separate=number > 1,
        )

    def stop(self):
        for host in reversed(self.hosts.values()):
            host.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = DaskCluster(tmp_path_factory.mktemp("dask"))
    try:
        cluster.start_worker(1, "--nthreads 1")
        cluster.start_worker(2, "--nthreads 2")
        cluster.start_worker(3, "--nthreads 1 --resources GPU=1")
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module", autouse=True)
def client(cluster):
    global users_client
    with Client(scheduler_file=cluster.file, set_as_default=False, timeout=PATIENCE) as client:
        client.wait_for_workers(3, timeout=PATIENCE)
        users_client = client
        yield client


users_client = None


@pytest.fixture(scope="module")
def executor(client):
    with af.get_executor("dask", address=client.scheduler.address) as executor:
        yield executor


class OnThreeHosts:
    def make_executor(self, max_workers, **options):
        return af.get_executor("dask", max_workers, client=users_client)


class TestData(OnThreeHosts, DataTests):
    pass


class TestIdentity(OnThreeHosts, IdentityTests):
    pass


def scores_of(result):
    return {name: result[name]["test_score"].tobytes() for name in result}


def still_works(client):
    return client.status == "running" and client.submit(pow, 2, 5, pure=False).result(PATIENCE) == 32


def test_where_workers_cannot_reach_the_caller_a_fit_that_hangs_says_where_it_was(
    cluster, executor, tmp_path, monkeypatch
):
    run = executor._client.run

    def unreachable(function, *args, **kwargs):
        answers = run(function, *args, **kwargs)
        return dict.fromkeys(answers, False) if function.__name__ == "can_reach" else answers

    monkeypatch.setattr(executor._client, "run", unreachable)
    folds = af.Folds(*probe_data(), cv=KFold(2))
    with pytest.warns(FitFailedWarning, match="2 of 4 tasks failed"):
        result = af.run_cv(
            {"hangs": Hangs(str(tmp_path)), "probe": Probe()}, folds, backend=executor, timeout=0.5
        )
    assert [failure.type for failure in result.failures] == ["TaskTimeoutError"] * 2
    assert all("in fit" in failure.traceback for failure in result.failures)
    assert not list(cluster.folder.rglob("anyfold-hung-*"))
    assert not list(Path(tempfile.gettempdir()).glob("anyfold-hung-*"))
    executor._client.wait_for_workers(3, timeout=PATIENCE)


def test_data_crosses_to_each_other_host_once(executor, monkeypatch):
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


class SaysWhere(Means):
    """Keeps the files that its process holds open."""

    def fit(self, X, y):
        self.host_ = os.environ["HOST"]
        self.open_ = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        return super().fit(X, y)


def test_where_memory_is_short_a_host_puts_the_copy_into_its_own_folder(executor, cluster):
    def spend_memory():
        from anyfold._data import storage

        storage.MEMORY_SHARE = 0.0

    def restore_memory():
        from anyfold._data import storage

        storage.MEMORY_SHARE = 0.5

    executor._client.run(spend_memory)
    try:
        result = af.run_cv(
            {f"where{i}": SaysWhere() for i in range(4)},
            af.Folds(X + 1, Y, cv=4),
            backend=executor,
            return_estimator=True,
        )
    finally:
        executor._client.run(restore_memory)
    seen = {}
    for name in result.models:
        for model in result.estimators(name):
            seen.setdefault(model.host_, []).extend(model.open_)
    assert {"2", "3"} <= seen.keys()
    for number in ("2", "3"):
        folders = {str(Path(file).parent) for file in seen[number] if "(deleted)" in file}
        assert str(cluster.folder / f"host{number}-large") in folders, seen[number]


def test_a_worker_that_dies_costs_no_result(executor, tmp_path):
    folds = af.Folds(*probe_data(), cv=KFold(3))
    models = {"dies": Dies(str(tmp_path), on=[20]), "probe": Probe(str(tmp_path))}
    result = af.run_cv(models, folds, backend=executor, retries=1)
    assert not result.failures
    assert count_invocations(tmp_path, "dies-20") == 2


def test_a_worker_process_with_two_threads_runs_one_task_at_a_time(executor, tmp_path):
    def enter(name):
        process = f"{Path('/proc/self/ns/pid').stat().st_ino}-{os.getpid()}"
        before = len(list(tmp_path.glob(f"{process}-*")))
        mine = tmp_path / f"{process}-{name}"
        mine.touch()
        sum(range(200_000))
        mine.unlink()
        return before

    with af.get_executor("dask", 6, client=executor._client) as wide:
        alone = [wide.submit(enter, str(i)) for i in range(40)]
        assert [future.result(PATIENCE) for future in alone] == [0] * 40


def test_what_a_task_leaves_to_the_collector_does_not_delay_the_next_one(executor):
    def patience(seconds):
        import gc

        from anyfold.executors import _dask_worker

        gc.enable() if seconds < PATIENCE else gc.disable()
        _dask_worker._FETCH_SECONDS, before = seconds, _dask_worker._FETCH_SECONDS
        return before

    def fails():
        try:
            raise ArithmeticError("as told")
        except ArithmeticError as error:
            kept = error  # refers to this frame, which refers to those of Dask with the answer
            raise kept  # noqa: B904

    before = set(executor._client.run(patience, 10 * PATIENCE).values())
    try:
        for _ in range(6):
            assert isinstance(executor.submit(fails).exception(PATIENCE), ArithmeticError)
    finally:
        executor._client.run(patience, *before)


def test_results_kept_on_one_host_are_read_on_others_and_by_the_caller(executor):
    shared = executor.submit_shared(np.arange, 1000.0).result(PATIENCE)
    seen = [executor.submit(lambda handle: handle.get().sum(), shared) for _ in range(8)]
    assert {future.result(PATIENCE) for future in seen} == {499500.0}
    assert shared.get().sum() == 499500.0


def test_a_task_runs_on_a_host_that_has_what_it_asks_for(executor):
    def host():
        return os.environ["HOST"]

    assert executor.submit_with_resources({"GPU": 1}, host).result(PATIENCE) == "3"
    with pytest.raises(InvalidSettingError, match="no worker of the Dask cluster has them"):
        executor.submit_with_resources({"GPU": 2}, host)


def test_what_a_worker_cannot_unpickle_fails_alone(executor):
    class Unreadable:
        def __reduce__(self):
            return int, ("no number",)

    failing = [executor.submit(print, Unreadable()) for _ in range(6)]
    good = [executor.submit(pow, 2, 5) for _ in range(6)]
    assert {type(future.exception(PATIENCE)) for future in failing} == {ValueError}
    assert {future.result(PATIENCE) for future in good} == {32}


def test_a_client_can_be_the_backend_and_has_one_executor(client):
    executor = executor_of(client)
    folds = af.Folds(X, Y, cv=3)
    serial = scores_of(af.run_cv(Means(), folds, backend="serial"))
    for _ in range(2):
        assert scores_of(af.run_cv(Means(), folds, backend=client)) == serial
    assert executor_of(client) is executor
    assert still_works(client)


def test_the_current_client_is_used_and_stays_open(client):
    with client.as_current():
        result = af.run_cv(Probe(), af.Folds(*probe_data(), cv=3), backend="dask")
    assert not result.failures
    assert still_works(client)


def test_the_address_may_come_from_the_environment(client, monkeypatch):
    monkeypatch.setenv("ANYFOLD_DASK_ADDRESS", client.scheduler.address)
    client.wait_for_workers(3, PATIENCE)  # a test before may have ended one
    with af.get_executor("dask") as executor:
        assert executor.max_workers == 3
        assert executor.submit(pow, 2, 5).result(PATIENCE) == 32


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    from anyfold.executors import _dask_connection

    monkeypatch.setattr(_dask_connection, "_SECONDS", 0.5)
    with pytest.raises(InvalidSettingError, match=r"tcp://127\.0\.0\.1:1.*dask scheduler"):
        af.get_executor("dask", address="tcp://127.0.0.1:1")


USERS_OWN = """
    import json, sys
    from distributed import Client
    import anyfold as af
    from anyfold.testing.probes import Fails, Hangs, Probe, ProbeError, probe_data
    from sklearn.model_selection import KFold

    folder, file = sys.argv[1:]
    client = Client(scheduler_file=file)
    alive = lambda: client.status == "running" and client.submit(lambda: 42, pure=False).result() == 42
    folds = af.Folds(*probe_data(), cv=KFold(4))
    result = af.run_cv(Probe(), folds, backend="dask")
    told = {"failures": len(result.failures), "alive after the run": alive()}
    try:
        af.run_cv(Fails(), folds, backend="dask", error_score="raise")
    except ProbeError:
        told["alive after an exception"] = alive()
    try:
        af.run_cv(Hangs(folder), folds, backend="dask")
    except KeyboardInterrupt as interrupt:
        told["interrupted"] = interrupt.result.interrupted
    told["alive after Ctrl-C"] = alive()
    print(json.dumps(told))
"""


def test_a_cluster_of_the_users_outlives_runs_exceptions_and_ctrl_c(client, cluster, tmp_path):
    assert interrupted(USERS_OWN, tmp_path, cluster.file, n_hanging=1) == {
        "failures": 0,
        "alive after the run": True,
        "alive after an exception": True,
        "interrupted": True,
        "alive after Ctrl-C": True,
    }
    assert still_works(client)


def test_a_host_that_is_gone_in_mid_run_costs_no_result(client, cluster, tmp_path):
    cluster.start_worker(4, "--nthreads 1")
    client.wait_for_workers(4, timeout=PATIENCE)

    def lose():
        try:
            wait_until(lambda: count_invocations(tmp_path, "hangs"), "a task on the fourth host", PATIENCE)
        finally:
            cluster.hosts[4].stop()
            (tmp_path / "gone").touch()

    folds = af.Folds(X, Y, cv=KFold(4))
    models = {f"means{i}": HangsOnTheFourth(str(tmp_path)) for i in range(4)}
    losing = threading.Thread(target=lose)
    losing.start()
    with af.get_executor("dask", 5, address=client.scheduler.address) as wider:  # one per thread
        result = af.run_cv(models, folds, backend=wider, retries=1)
    losing.join()
    serial = af.run_cv({name: Means() for name in models}, folds, backend="serial")
    assert scores_of(result) == scores_of(serial)
    assert count_invocations(tmp_path, "hangs") == 1


def test_a_worker_that_is_lost_is_replaced_however_long_that_takes(monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", "1ms")
    with af.get_executor("dask", n_jobs=1) as executor:
        error = executor.submit(os.kill, executor.submit(os.getpid).result(PATIENCE), signal.SIGKILL)
        assert isinstance(error.exception(PATIENCE), WorkerLostError)
        assert executor.submit(pow, 2, 5).result(PATIENCE) == 32


@pytest.fixture(scope="module")
def local():
    with af.get_executor("dask", n_jobs=1) as executor:
        yield executor


def test_the_executor_of_a_client_can_be_passed_as_it_is_where_workers_are_on_this_host(local):
    folds = af.Folds(X, Y, cv=3)
    with Client(local._client.scheduler.address, set_as_default=False) as client:
        result = af.run_cv(Means(), folds, backend=client.get_executor(pure=False))
    assert scores_of(result) == scores_of(af.run_cv(Means(), folds, backend="serial"))


STRANGER = """
import os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
for address in sys.argv[2:]:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    with socket.socket() as channel:
        channel.connect((host, int(port)))
        try:
            print(len(channel.recv(1)))  # Dask begins with a greeting
        except ConnectionResetError:
            print(0)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("user", "greeted"), [(0, "1"), (65534, "0")], ids=["the same", "another"])
def test_another_user_is_hung_up_on_by_scheduler_nanny_and_worker_of_a_local_cluster(local, user, greeted):
    scheduler = local._client.scheduler_info(n_workers=-1)
    ((worker, about),) = scheduler["workers"].items()
    addresses = [scheduler["address"], worker, about["nanny"]]
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(user), *addresses], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [greeted] * 3
