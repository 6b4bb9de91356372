"""A Ray cluster of three nodes that the user started, and one that loses a node in mid-run."""

import json
import subprocess
import sys

SCRIPT = """
import json, os, threading, time
from pathlib import Path

import numpy as np
import ray
from ray.cluster_utils import Cluster
from sklearn.base import BaseEstimator, ClassifierMixin

import anyfold as af

folder = Path(os.sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
nodes = [cluster.add_node(num_cpus=1, resources={"other": 1}) for _ in range(2)]
ray.init(cluster.address, log_to_driver=False)
cluster.wait_for_nodes()


class Means(ClassifierMixin, BaseEstimator):
    def __init__(self, fails=False, hangs=""):
        self.fails = fails
        self.hangs = hangs

    def fit(self, X, y):
        if self.fails:
            raise ArithmeticError("as told")
        if self.hangs and not Path(self.hangs).exists():
            Path(self.hangs).with_suffix(".new").write_text(ray.get_runtime_context().get_node_id())
            Path(self.hangs).with_suffix(".new").rename(self.hangs)
            threading.Event().wait()
        self.classes_ = np.unique(y)
        self.mean_ = X.sum()
        return self

    def predict(self, X):
        return self.classes_[(X.sum(axis=1) > self.mean_ / 1e4).astype(int)]


X = np.asfortranarray(np.random.default_rng(0).normal(size=(4000, 50)))
y = (X[:, 0] > 0).astype(int)
folds = af.Folds(X, y, cv=5)
models = {f"means{i}": Means() for i in range(20)}
scores = lambda result: {name: result[name]["test_score"].tobytes() for name in result}
serial = scores(af.run_cv(models, folds, backend="serial"))
told = {}

puts = []
put = ray.put
ray.put = lambda value: puts.append(sum(part.nbytes for part in value)) or put(value)
hanging = folder / "hanging"


def lose_a_node():
    while not hanging.exists():
        time.sleep(0.01)
    (lost,) = [node for node in nodes if node.node_id == hanging.read_text()]
    cluster.remove_node(lost, allow_graceful=False)


with af.get_executor("ray") as executor:
    told["workers"] = executor.max_workers
    told["same"] = scores(af.run_cv(models, folds, backend=executor)) == serial
    told["same again"] = scores(af.run_cv(models, folds, backend=executor)) == serial
    told["puts of data"] = sum(size > X.nbytes for size in puts)
    seen = executor.submit_with_resources({"other": 1}, lambda: ray.get_runtime_context().get_node_id())
    told["on another node"] = seen.result() != ray.get_runtime_context().get_node_id()
    losing = threading.Thread(target=lose_a_node)
    losing.start()
    lossy = af.run_cv(
        {"means0": Means(hangs=str(hanging)), **{f"means{i}": models[f"means{i}"] for i in range(1, 20)}},
        folds,
        backend=executor,
        resources={"means0": {"cpu": 1, "other": 1}},
    )
    losing.join()
    told["same without a node"] = scores(lossy) == serial
    while sum(node["Alive"] for node in ray.nodes()) > 2:  # Ray takes its time to call a node dead
        time.sleep(0.1)
    try:
        af.run_cv(Means(fails=True), folds, backend=executor, error_score="raise")
    except ArithmeticError:
        told["raised"] = True

alive = ray.remote(lambda: 42)
told["alive"] = ray.get(alive.remote())
(folder / "told.json").write_text(json.dumps(told))
ray.shutdown()
cluster.shutdown()
"""


def test_three_nodes_give_the_serial_numbers_also_when_one_is_lost(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=115
    )
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert told == {
        "workers": 3,
        "same": True,
        "same again": True,
        "puts of data": 1,
        "on another node": True,
        "same without a node": True,
        "raised": True,
        "alive": 42,
    }
