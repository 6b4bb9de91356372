"""A Ray cluster of three hosts that the user started from the shell, its token among what it needs."""

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import ray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import KFold
from tests.clusters.hosts import PATIENCE, Host, interrupted, script

import anyfold as af
from anyfold._session import expected_workers
from anyfold.errors import InvalidSettingError
from anyfold.settings import resolve
from anyfold.testing._data_tests import DataTests
from anyfold.testing._identity import IdentityTests
from anyfold.testing._limits import wait_until
from anyfold.testing.probes import Dies, Hangs, Probe, count_invocations, hold, probe_data

HEAD = "127.0.0.11"
X = np.asfortranarray(np.random.default_rng(0).normal(size=(20_000, 100)))  # 16 MB
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
        if os.environ.get("HOST") == "4":
            hold(self.folder, "hangs", "never")
        while not (Path(self.folder) / "gone").exists():
            threading.Event().wait(0.01)
        return super().fit(X, y)


class RayCluster:
    def __init__(self, folder):
        self.folder = folder
        self.temp_dir = Path(tempfile.mkdtemp(prefix="ray-"))  # short, because of the names of sockets
        with socket.create_server((HEAD, 0)) as probe:
            self.address = f"{HEAD}:{probe.getsockname()[1]}"
        self.hosts = {}

    def start(self, number, options=""):
        role = f"--address={self.address}"
        if number == 1:
            role = f"--head --port={self.address.rpartition(':')[2]} --temp-dir={self.temp_dir} "
            role += "--include-dashboard=false"
        self.hosts[number] = Host(
            f"{script('ray')} start {role} --node-ip-address=127.0.0.1{number} --num-cpus=1 --block "
            f"--object-store-memory=100000000 --disable-usage-stats {options}",
            self.folder / f"host{number}",
            {"HOST": str(number), "RAY_worker_niceness": "0"},  # other tests run on this machine, too
            separate=number > 1,
            private=[self.temp_dir],
        )

    def wait_for(self, *numbers):
        for number in numbers:
            self.hosts[number].wait_for("Ray runtime started")

    def stop(self):
        for host in reversed(self.hosts.values()):
            host.stop()
        shutil.rmtree(self.temp_dir, ignore_errors=True)


cluster_address = ""


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    global cluster_address
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        cluster = RayCluster(tmp_path_factory.mktemp("ray"))
        stack.callback(cluster.stop)
        cluster.start(1)
        cluster.wait_for(1)
        cluster.start(2, """--num-gpus=1 --resources='{"other": 1, "two": 1}'""")
        cluster.start(3, """--resources='{"other": 1, "three": 1}'""")
        cluster.wait_for(2, 3)
        cluster_address = cluster.address
        yield cluster


@pytest.fixture(scope="module")
def executor(cluster):
    with af.get_executor("ray", address=cluster.address) as executor:
        yield executor


class OnThreeHosts:
    def make_executor(self, max_workers, **options):
        return af.get_executor("ray", 1 if max_workers == 1 else 3, address=cluster_address)


class TestData(OnThreeHosts, DataTests):
    pass


class TestIdentity(OnThreeHosts, IdentityTests):
    pass


def scores_of(result):
    return {name: result[name]["test_score"].tobytes() for name in result}


def host_number():
    return os.environ["HOST"]


def shared_memory():
    return shutil.disk_usage("/dev/shm").used


def test_a_task_runs_on_a_host_that_has_what_it_asks_for(executor):
    assert executor.max_workers == 3
    placed = {
        "2": [{"two": 1}, {"cpu": 1, "gpu": 0.5, "other": 0.5}],
        "3": [{"three": 0.1}],
    }
    for number, wanted in placed.items():
        for resources in wanted:
            assert executor.submit_with_resources(resources, host_number).result(PATIENCE) == number


def test_the_cpus_of_all_hosts_are_counted_before_a_run(executor):
    outlook = expected_workers(resolve({"backend": "ray"}))
    assert (outlook.n_workers(), outlook.are_there()) == (3, True)


def test_what_no_single_host_has_is_refused_though_all_have_it_together(executor):
    for resources in ({"cpu": 2}, {"three": 1, "gpu": 1}):
        with pytest.raises(InvalidSettingError, match="no node of the Ray cluster has"):
            executor.submit_with_resources(resources, host_number)


def test_hosts_that_share_nothing_with_the_caller_hold_the_data_once(executor):
    def used(number):
        return executor.submit_with_resources({number: 1}, shared_memory).result(PATIENCE)

    folds = af.Folds(X, Y, cv=KFold(5))
    models = {f"means{i}": Means() for i in range(8)}
    resources = {"means0": {"two": 1}, "means1": {"three": 1}}  # so that both have something to do
    expected = scores_of(af.run_cv(models, folds, backend="serial"))
    for _ in range(2):
        assert scores_of(af.run_cv(models, folds, backend=executor, resources=resources)) == expected
    held = {number: used(number) for number in ("two", "three")}
    assert all(X.nbytes < n_bytes < 2 * X.nbytes for n_bytes in held.values()), held


def test_a_worker_that_dies_costs_no_result_and_its_task_is_run_once_more(executor, tmp_path):
    folds = af.Folds(*probe_data(), cv=KFold(3))
    models = {"dies": Dies(str(tmp_path), on=[20]), "probe": Probe(str(tmp_path))}
    result = af.run_cv(models, folds, backend=executor, retries=1)
    assert not result.failures
    runs = {path.name.partition(".")[0] for path in tmp_path.iterdir()}
    assert {name: count_invocations(tmp_path, name) for name in runs} == {
        **{f"{name}-{first}": 1 for name in ("dies", "probe") for first in (0, 20, 40)},
        "dies-20": 2,
    }


def test_where_workers_cannot_reach_the_caller_units_have_one_task(executor, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")  # the mailbox is not encrypted
    folds = af.Folds(*probe_data(), cv=KFold(3))
    with pytest.warns(FitFailedWarning, match="1 of 6 tasks failed"):
        result = af.run_cv(
            {"dies": Dies(str(tmp_path), on=[20], deaths=9), "probe": Probe(str(tmp_path))},
            folds,
            backend=executor,
            retries=0,
        )
    assert [(failure.model, failure.fold) for failure in result.failures] == [("dies", 1)]
    assert count_invocations(tmp_path, "*") == 6


def test_where_workers_cannot_reach_the_caller_a_fit_that_hangs_is_stopped_once_and_says_where_it_was(
    cluster, executor, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    models = {"hangs": Hangs(str(tmp_path)), "probe": Probe()}
    folds = af.Folds(*probe_data(), cv=KFold(2))
    with pytest.warns(FitFailedWarning, match="2 of 4 tasks failed"):
        result = af.run_cv(models, folds, backend=executor, timeout=0.5)
    assert [failure.type for failure in result.failures] == ["TaskTimeoutError"] * 2
    assert all("in fit" in failure.traceback for failure in result.failures)
    assert count_invocations(tmp_path, "*hangs") == 2
    assert not list(Path(cluster.temp_dir).rglob("anyfold-hung-*"))


USERS_OWN = """
    import json, sys
    import ray
    import anyfold as af
    from anyfold.testing.probes import Fails, Hangs, Probe, ProbeError, probe_data
    from sklearn.model_selection import KFold

    folder, address = sys.argv[1:]
    ray.init(address, log_to_driver=False)
    alive = lambda: ray.is_initialized() and ray.get(ray.remote(lambda: 42).remote()) == 42
    folds = af.Folds(*probe_data(), cv=KFold(3))
    result = af.run_cv(Probe(), folds, backend="ray")
    told = {"failures": len(result.failures), "alive after the run": alive()}
    try:
        af.run_cv(Fails(), folds, backend="ray", error_score="raise")
    except ProbeError:
        told["alive after an exception"] = alive()
    try:
        af.run_cv(Hangs(folder), folds, backend="ray")
    except KeyboardInterrupt as interrupt:
        told["interrupted"] = interrupt.result.interrupted
    told["alive after Ctrl-C"] = alive()
    print(json.dumps(told))
"""


def test_a_ray_that_the_user_initialized_is_used_and_outlives_runs_exceptions_and_ctrl_c(
    cluster, executor, tmp_path
):
    assert interrupted(USERS_OWN, tmp_path, cluster.address, n_hanging=1) == {
        "failures": 0,
        "alive after the run": True,
        "alive after an exception": True,
        "interrupted": True,
        "alive after Ctrl-C": True,
    }
    wait_until(lambda: ray.available_resources().get("CPU") == 3, "the end of what hung", PATIENCE)


def test_a_process_has_one_connection_to_ray(cluster, executor):
    with af.get_executor("ray", address=cluster.address) as other:
        assert other.submit(pow, 2, 5).result(PATIENCE) == 32
    assert executor.submit(pow, 2, 5).result(PATIENCE) == 32
    for address in ("127.0.0.1:1", "local"):
        with pytest.raises(InvalidSettingError, match=f"connected to Ray at '{cluster.address}'"):
            af.get_executor("ray", address=address)


def test_a_host_that_is_gone_in_mid_run_costs_no_result(cluster, executor, tmp_path):
    cluster.start(4)
    cluster.wait_for(4)

    def lose():
        try:
            wait_until(lambda: count_invocations(tmp_path, "hangs"), "a task on the fourth host", PATIENCE)
        finally:
            cluster.hosts[4].stop()
            (tmp_path / "gone").touch()

    folds = af.Folds(X, Y, cv=KFold(5))
    models = {f"means{i}": HangsOnTheFourth(str(tmp_path)) for i in range(8)}
    losing = threading.Thread(target=lose)
    losing.start()
    with af.get_executor("ray", address=cluster.address) as wider:
        assert wider.max_workers == 4
        result = af.run_cv(models, folds, backend=wider, retries=1)
    losing.join()
    serial = af.run_cv({name: Means() for name in models}, folds, backend="serial")
    assert scores_of(result) == scores_of(serial)
    assert count_invocations(tmp_path, "hangs") == 1
