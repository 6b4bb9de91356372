"""How many workers a run would find, said before any are started."""

import sys
from types import SimpleNamespace

import joblib
import numpy as np
import pytest
from distributed import Client, LocalCluster
from sklearn.linear_model import LinearRegression

import anyfold as af
from anyfold._session import expected_workers
from anyfold.errors import InvalidSettingError
from anyfold.events import TaskFinished
from anyfold.settings import effective_n_jobs, resolve

N_WORKERS = effective_n_jobs(None) + 3
"""No machine has so many cores."""


@pytest.fixture(scope="module")
def address():
    with LocalCluster(
        n_workers=N_WORKERS,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    ) as cluster:
        yield cluster.scheduler_address
        af.shutdown()


@pytest.fixture
def client(address):
    with Client(address) as client:
        yield client


def expected(**settings):
    return expected_workers(resolve(settings))


def test_the_cluster_of_the_current_client_is_counted(client):
    outlook = expected(backend="dask")
    assert (outlook.n_workers(), outlook.are_there()) == (N_WORKERS, True)


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_cluster_that_is_named_by_its_address_is_counted(address, how, monkeypatch):
    options = {"address": address} if how == "option" else {}
    if how == "variable":
        monkeypatch.setenv("ANYFOLD_DASK_ADDRESS", address)
    outlook = expected(backend="dask", backend_options=options)
    assert (outlook.n_workers(), outlook.are_there()) == (N_WORKERS, True)


def test_rows_are_split_for_all_workers_of_a_cluster(client):
    X = np.arange(256.0 * N_WORKERS)[:, None]
    model, events = LinearRegression().fit(X[:9], X[:9, 0]), []
    resources = {"linearregression": {"cpu": 1}}  # so that nothing is tried first
    af.predict_partitions(model, X, backend="dask", resources=resources, callbacks=[events.append])
    assert sum(isinstance(event, TaskFinished) for event in events) == N_WORKERS


def test_a_cluster_that_does_not_answer_is_an_error_and_no_other_is_counted(monkeypatch):
    monkeypatch.setattr("anyfold.executors._dask_connection._SECONDS", 0.1)
    outlook = expected(backend="dask", backend_options={"address": "tcp://127.0.0.1:9"})
    with pytest.raises(InvalidSettingError, match="no Dask scheduler answers"):
        outlook.n_workers()


def test_the_ray_that_this_process_uses_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))
    assert expected(backend="ray").are_there()


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_where_there_is_no_cluster_the_cores_of_this_machine_are_counted(backend, monkeypatch):
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    outlook = expected(backend=backend)
    assert (outlook.n_workers(), outlook.are_there()) == (effective_n_jobs(None), False)


@pytest.mark.parametrize("backend", ["dask", "ray", "multiprocessing", "joblib"])
def test_the_number_that_is_asked_for_is_what_there_will_be(backend, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert expected(backend=backend, n_jobs=5).n_workers() == 5


def test_joblib_has_as_many_as_it_is_told():
    with joblib.parallel_config(n_jobs=7):
        assert expected(backend="joblib").n_workers() == 7
