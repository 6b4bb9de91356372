"""Category ``identity``: promise 1, outcomes equal the serial backend's to the last bit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import joblib
import numpy as np

from anyfold._plan import units
from anyfold.executors.base import isolation_of
from anyfold.testing._base import ContractBase, oracle
from anyfold.testing._case import contract_test
from anyfold.testing._wrappers import Recording, Reordering
from anyfold.testing.probes import Fails, Noisy, Probe, Warns, probe_data

__all__ = ["IdentityTests", "differences", "fingerprint"]

KEEP = {"return_train_score": True, "return_estimator": True, "return_predictions": True}


@cache
def _model_kinds() -> dict[str, dict[str, Any]]:
    """Return models of many kinds, by the data that they need; random states are left open."""
    from sklearn.cluster import KMeans
    from sklearn.compose import make_column_transformer
    from sklearn.decomposition import PCA
    from sklearn.ensemble import (
        BaggingClassifier,
        GradientBoostingRegressor,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
        VotingClassifier,
    )
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer, StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    return {
        "classes": {
            "pipeline": make_pipeline(StandardScaler(), PCA(3), LogisticRegression()),
            "forest": RandomForestClassifier(6),
            "forest on all cores": RandomForestClassifier(6, n_jobs=-1),
            "nested": BaggingClassifier(make_pipeline(StandardScaler(), DecisionTreeClassifier()), 3),
            "gradient descent": SGDClassifier(max_iter=5, tol=None),
            "neighbours": KNeighborsClassifier(),
            "boosting": HistGradientBoostingClassifier(max_iter=4),
            "support vectors": SVC(),
            "network": MLPClassifier((4,), max_iter=5),
            "clusters that write to their data": KMeans(3, n_init=2, copy_x=False),
            "vote": VotingClassifier([("tree", DecisionTreeClassifier()), ("bayes", GaussianNB())]),
            "columns": make_pipeline(
                make_column_transformer(
                    (QuantileTransformer(n_quantiles=10, subsample=50), [0, 1]), remainder="passthrough"
                ),
                LogisticRegression(max_iter=20),
            ),
            "fails on one fold": Fails(on=(30,)),
            "warns": Warns(name="warning", times=2),
        },
        "numbers": {
            "ridge": Ridge(),
            "boosting": GradientBoostingRegressor(n_estimators=4, subsample=0.5),
            "process": GaussianProcessRegressor(alpha=1e-2, n_restarts_optimizer=1),
        },
        # (An analyzer of words keeps the address of its stop words, which differs between processes.)
        "text": {
            "text": make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(1, 2)), SGDClassifier())
        },
    }


def _folds(kind: str) -> Any:
    from sklearn.model_selection import KFold

    from anyfold import Folds

    X, _ = probe_data(90)
    match kind:
        case "classes":
            return Folds(np.asfortranarray(X), ((X[:, 1] + X[:, 2]) > 0).astype(int), cv=KFold(3))
        case "numbers":
            return Folds(X, X @ np.array([0.1, 1.0, -1.0, 0.5]), cv=KFold(3))
    words = ["red", "green", "blue", "cyan", "one", "two"]
    picks = np.random.default_rng(3).integers(0, len(words), (90, 8))
    text = [" ".join(words[i] for i in row) for row in picks]
    return Folds(text, ["warm" if "red" in line else "cold" for line in text], cv=KFold(3))


@cache
def _expected(kind: str) -> dict[str, Any]:
    return fingerprint(oracle(_model_kinds()[kind], _folds(kind), **KEEP))


def _small_models() -> dict[str, Any]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression, SGDClassifier

    return {
        "forest": RandomForestClassifier(2),
        "descent": SGDClassifier(max_iter=3, tol=None),
        "logistic": LogisticRegression(max_iter=20),
        "fails": Fails(on=(0, 60)),
        "warns": Warns(),
    }


@cache
def _expected_of_small() -> dict[str, Any]:
    return fingerprint(oracle(_small_models(), _folds("classes"), **KEEP))


def fingerprint(result: Any) -> dict[str, Any]:
    """Return everything that is promised to be equal, keyed by what it is of; times are left out.

    Parameters
    ----------
    result : CVResult
        Of a run that kept estimators and predictions.

    Returns
    -------
    dict
        (part, model, fold) -> bytes, hashes and text that can be compared exactly.
    """
    parts: dict[Any, Any] = {}
    frame = result.to_frame().drop(columns=["fit_time", "score_time"])
    for row in frame.to_dict("records"):
        model, fold = row.pop("model"), row.pop("fold")
        parts["scores", model, fold] = {
            name: np.float64(value).tobytes().hex() for name, value in row.items()
        }
    for name in result.models:
        for fold, model in enumerate(result.estimators(name)):
            parts["fitted attributes", name, fold] = None if model is None else joblib.hash(vars(model))
        for fold, (_, values) in enumerate(result.predictions(name, by_fold=True)):
            parts["predictions", name, fold] = None if values is None else joblib.hash(np.asarray(values))
    for failure in result.failures:
        told = (failure.stage, failure.type, failure.message)
        parts.setdefault(("failures", failure.model, failure.fold), []).append(told)
    for warning in result.warnings:
        issued = (warning.category.__name__, warning.message)
        parts.setdefault(("warnings", warning.model, warning.fold), []).append(issued)
    return parts


def differences(found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> list[str]:
    """Say what differs between two fingerprints."""
    keys = sorted(found.keys() | expected.keys(), key=str)
    return [
        f"{part} of model {model!r} on fold {fold}: {found.get((part, model, fold), 'none')}, "
        f"on the serial backend {expected.get((part, model, fold), 'none')}"
        for part, model, fold in keys
        if found.get((part, model, fold)) != expected.get((part, model, fold))
    ]


def check_equal(found: Mapping[Any, Any], expected: Mapping[Any, Any], where: str) -> None:
    """Raise where two fingerprints differ."""
    differing = differences(found, expected)
    shown = "\n".join(differing[:5])
    assert not differing, f"{where}: {len(differing)} outcomes differ from the serial backend's, as\n{shown}"


@contextlib.contextmanager
def unit_worth(seconds: float) -> Iterator[None]:
    """Have the plan group leaves into units worth so much time: 0 for one leaf each, much for many."""
    before = units.WORTH_DISPATCHING
    units.WORTH_DISPATCHING = seconds
    try:
        yield
    finally:
        units.WORTH_DISPATCHING = before


def _n_leaves(fn: Any, args: tuple[Any, ...], kwargs: Any) -> int:
    return next((len(arg) for arg in args if isinstance(arg, tuple)), 1)


class IdentityTests(ContractBase):
    """Whether it matters where something ran."""

    @contract_test("identity")
    def test_every_kind_of_model_gives_the_serial_numbers(self) -> None:
        """Scores, predictions, fitted attributes, failures and warnings of many models are serial ones."""
        for kind, models in _model_kinds().items():
            found = fingerprint(self.run_cv(models, _folds(kind), **KEEP))
            check_equal(found, _expected(kind), f"{kind}, 2 workers")

    @contract_test("identity")
    def test_the_number_of_workers_changes_nothing(self) -> None:
        """One worker and three workers give the same outcomes."""
        for n_workers in (1, 3):
            with self.executor(n_workers) as executor:
                found = fingerprint(self.run_cv(_small_models(), _folds("classes"), executor, **KEEP))
            check_equal(found, _expected_of_small(), f"{n_workers} workers")

    @contract_test("identity")
    def test_the_order_of_completion_changes_nothing(self) -> None:
        """Outcomes that come in reverse, or in any order, are those of their own tasks."""
        with self.executor() as executor:
            for seed in (None, 0, 1):
                ordering = "reversed" if seed is None else f"random ({seed})"
                found = self.run_cv(_small_models(), _folds("classes"), Reordering(executor, seed), **KEEP)
                check_equal(fingerprint(found), _expected_of_small(), f"order of completion {ordering}")

    @contract_test("identity")
    def test_the_grouping_of_tasks_changes_nothing(self) -> None:
        """Tasks that are sent one by one or many at once have the same outcomes."""
        for worth in (0.0, 1e9):
            with self.executor() as executor, unit_worth(worth):
                recording = Recording(executor, _n_leaves)
                found = self.run_cv(_small_models(), _folds("classes"), recording, **KEEP)
            largest = max(recording.recorded)
            is_grouped = (
                worth > 0 and isolation_of(recording) != "none"
            )  # the caller's thread does one by one
            assert (largest > 1) == is_grouped, f"units of up to {largest} tasks were made"
            check_equal(fingerprint(found), _expected_of_small(), f"up to {largest} tasks at once")

    @contract_test("identity")
    def test_the_company_of_a_model_changes_nothing(self) -> None:
        """A model's outcomes do not depend on which other models are there, nor on their order."""
        models = _small_models()
        company = {f"company {i}": Probe(name=f"company {i}") for i in range(3)}
        reordered = {**company, **dict(reversed(models.items()))}
        found = fingerprint(self.run_cv(reordered, _folds("classes"), **KEEP))
        kept = {key: value for key, value in found.items() if key[1] in models}
        check_equal(kept, _expected_of_small(), "models added and reordered")

    @contract_test("identity")
    def test_a_second_run_repeats_the_first(self) -> None:
        """Warm workers, which have run other tasks before, give the same outcomes again."""
        with self.executor() as executor:
            self.run_cv(Noisy(), _folds("classes"), executor)
            for number in ("first", "second"):
                found = fingerprint(self.run_cv(_small_models(), _folds("classes"), executor, **KEEP))
                check_equal(found, _expected_of_small(), f"the {number} run")
