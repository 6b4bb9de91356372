"""Keys by content: equal for equal work in any process, and only then."""

import functools
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

import anyfold as af
from anyfold._data.serialize import dumps, loads
from anyfold._plan.canonical import Encoder
from anyfold._plan.code_identity import CodeIdentities
from anyfold._plan.content import Conditions, content_keys, describe_model
from anyfold._plan.scoring import make_scorer_for
from anyfold._plan.task import Leaf, TaskKey
from anyfold._worker.cross_validate import ModelPlan

RANDOM = np.random.RandomState(0)
X = RANDOM.rand(30, 4)
Y = np.arange(30) % 2

SAME = {
    "root_seed": 0,
    "inner_threads": 1,
    "return_train_score": False,
    "sklearn_config": sklearn.get_config(),
    "warning_filters": (),
    "versions": {"python": "3.11.7", "numpy": "2.4.0"},
}


def encoded(value):
    return Encoder(CodeIdentities()).encode(value)


def key_of(
    model=None,
    *,
    name="model",
    X=X,
    y=Y,
    fold=0,
    candidate=0,
    parameters=None,
    scoring=None,
    raise_errors=False,
    fit_params=None,
    cv=3,
    **changed,
):
    model = LogisticRegression() if model is None else model
    scorer = make_scorer_for(name, model, scoring, raise_errors=raise_errors)
    plans = {name: ModelPlan(clone(model), scorer, False, fit_params or {}, {})}
    leaf = Leaf(TaskKey(name, candidate, fold), parameters)
    folds = af.Folds(X, y, cv=cv)
    (key,) = content_keys([leaf], plans, folds, "identity", Conditions(**{**SAME, **changed})).values()
    return key


def digest_of(*args, **kwargs):
    key = key_of(*args, **kwargs)
    assert key.digest is not None, key.reason
    return key.digest


# Equal


def test_a_key_is_64_hexadecimal_digits():
    assert len(bytes.fromhex(digest_of())) == 32


def test_name_and_candidate_have_no_part_in_the_key():
    assert digest_of(name="a") == digest_of(name="b") == digest_of(candidate=3)


def test_parameters_of_a_candidate_are_those_of_the_model():
    assert digest_of(LogisticRegression(C=2.0)) == digest_of(parameters={"C": 2.0})
    assert digest_of(parameters={"C": 2.0, "tol": 0.1}) == digest_of(parameters={"tol": 0.1, "C": 2.0})


def test_what_a_model_has_learned_has_no_part_in_the_key():
    assert digest_of(LogisticRegression().fit(X, Y)) == digest_of(LogisticRegression())


def test_copies_of_the_data_have_the_same_key():
    assert digest_of(X=X.copy()) == digest_of()


def test_a_scorer_is_what_it_does_and_not_how_it_was_named():
    assert digest_of(scoring="accuracy") == digest_of(scoring=make_scorer(accuracy_score))


def test_whether_errors_are_raised_has_no_part_in_the_key():
    several = ["accuracy", "f1"]
    assert digest_of(scoring=several, raise_errors=True) == digest_of(scoring=several)


def test_filters_that_raise_nothing_have_no_part_in_the_key():
    ignore = ("ignore", None, UserWarning, None, 0)
    assert digest_of(warning_filters=(ignore,)) == digest_of()


def test_what_scikit_learn_displays_has_no_part_in_the_key():
    config = {**sklearn.get_config(), "display": "text", "print_changed_only": False}
    assert digest_of(sklearn_config=config) == digest_of()


# Different


@pytest.mark.parametrize(
    "changed",
    [
        {"model": LogisticRegression(C=2.0)},
        {"model": LogisticRegression(C=1)},
        {"model": LogisticRegression(C=True)},
        {"model": LogisticRegression(C=np.int64(1))},
        {"model": SVC()},
        {"parameters": {"C": 3.0}},
        {"X": np.asfortranarray(X)},
        {"X": X.astype(np.float32)},
        {"X": np.nextafter(X, 1)},
        {"X": pd.DataFrame(X)},
        {"X": pd.DataFrame(X, columns=list("abcd"))},
        {"X": pd.DataFrame(X, index=range(1, 31))},
        {"X": X.tolist()},
        {"y": Y.astype(np.int32)},
        {"y": 1 - Y},
        {"y": Y.astype(bool)},
        {"fold": 1},
        {"cv": 4},
        {"scoring": "accuracy"},
        {"scoring": ["accuracy"]},
        {"scoring": make_scorer(accuracy_score, normalize=False)},
        {"scoring": lambda estimator, X, y: 0.5},
        {"scoring": lambda estimator, X, y: 0.25},
        {"fit_params": {"sample_weight": np.ones(30)}},
        {"fit_params": {"sample_weight": np.full(30, 2.0)}},
        {"root_seed": 1},
        {"inner_threads": 2},
        {"return_train_score": True},
        {"sklearn_config": {**sklearn.get_config(), "assume_finite": True}},
        {"versions": {"python": "3.11.7", "numpy": "2.4.1"}},
        {"warning_filters": (("error", None, UserWarning, None, 0),)},
        {"warning_filters": (("error", None, RuntimeWarning, None, 0),)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_may_change_a_number_changes_the_key(changed):
    everything = test_what_may_change_a_number_changes_the_key.pytestmark[0].args[1]
    others = [other for other in everything if other is not changed]
    assert digest_of(**changed) not in {digest_of(), *(digest_of(**other) for other in others)}


class Holder(BaseEstimator):
    def __init__(self, value=None):
        self.value = value

    def fit(self, X, y=None):
        return self

    def score(self, X, y=None):
        return 1.0


@pytest.mark.parametrize(
    "value",
    [
        make_pipeline(StandardScaler(), SVC(C=2.0)),
        VotingClassifier([("a", SVC()), ("b", LogisticRegression())]),
        [StandardScaler(), SVC()],
        {"svc": SVC(), "scaler": StandardScaler()},
        FunctionTransformer(np.log1p),
        functools.partial(np.mean, axis=0),
        {"a", "b", "c", ("d", 1)},
        np.random.RandomState(3),
        np.random.default_rng(3),
        np.arange(5.0),
        np.dtype("f4"),
        pd.Series(["a", None, "b"], dtype="string"),
        pd.Timestamp("2020-01-01", tz="UTC"),
        LogisticRegression,
        -0.0,
        float("nan"),
        "text with \ud800",
        2**100,
        slice(1, 2),
        Holder(Holder(1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_parameter_with_content_has_a_place_in_the_key(value):
    assert digest_of(Holder(value)) == digest_of(Holder(value))
    assert digest_of(Holder(value)) != digest_of(Holder(None))


def test_random_states_are_their_state():
    assert digest_of(SVC(random_state=np.random.RandomState(3))) == digest_of(
        SVC(random_state=np.random.RandomState(3))
    )
    used = np.random.RandomState(3)
    used.rand()
    assert digest_of(SVC(random_state=used)) != digest_of(SVC(random_state=np.random.RandomState(3)))


def test_output_and_routing_that_are_set_on_a_model_are_part_of_it():
    plain, pandas = StandardScaler(), StandardScaler().set_output(transform="pandas")
    keys = {digest_of(make_pipeline(scaler, SVC())) for scaler in (plain, pandas)}
    assert len(keys) == 2


def test_a_circle_of_values_has_an_encoding():
    def circle(n):
        values = [n]
        values.append(values)
        return values

    assert encoded(circle(1)) == encoded(circle(1)) != encoded(circle(2))


# Not trusted


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda: (i for i in ()), "the model: Holder.value: "),
        (lambda: lambda: eval("1"), "eval() can refer to anything"),
        (lambda: sys._getframe(), "frame"),
    ],
)
def test_a_value_without_content_gives_a_reason_instead_of_a_key(value, reason):
    made = value()
    plan = ModelPlan(Holder(made), make_scorer_for("m", Holder(), None, raise_errors=False), False, {}, {})
    keys = content_keys(
        [Leaf(TaskKey("m", 0, fold)) for fold in range(2)],
        {"m": plan},
        af.Folds(X, Y, cv=2),
        "",
        Conditions(**SAME),
    )
    assert [key.digest for key in keys.values()] == [None, None]
    assert all(reason in key.reason for key in keys.values())


def test_one_model_that_cannot_be_trusted_leaves_the_others_their_keys():
    scorer = make_scorer_for("m", Holder(), None, raise_errors=False)
    plans = {
        "bad": ModelPlan(Holder(iter([])), scorer, False, {}, {}),
        "good": ModelPlan(Holder(1), scorer, False, {}, {}),
    }
    keys = content_keys(
        [Leaf(TaskKey(name, 0, 0)) for name in plans], plans, af.Folds(X, Y), "", Conditions(**SAME)
    )
    assert keys[TaskKey("bad", 0, 0)].digest is None
    assert keys[TaskKey("good", 0, 0)].digest is not None


def test_parameters_that_cannot_be_set_give_a_reason():
    key = key_of(parameters={"nonsense": 1})
    assert key.digest is None and "nonsense" in key.reason


# Data


DATA = [
    X,
    np.asfortranarray(X),
    X[::2],
    X.T,
    X.astype(object),
    np.array(["a", "bc"]),
    np.array(["2020-01-01"], "M8[D]"),
    np.zeros(2, dtype=[("a", "f4"), ("b", "O")]),
    np.ma.masked_array([1.0, 2.0], [0, 1], fill_value=3.0),
    np.array([[1, 2]]).view(np.matrix),
    np.zeros((0, 3)),
    sp.csr_matrix(X),
    sp.csc_array(X),
    sp.coo_array(X),
    [f"text {i}" for i in range(30)],
    pd.DataFrame({"a": range(3), "s": ["u", "v", None], "c": pd.Categorical(["p", "q", "p"])}),
    pd.Series([1, None], dtype="Int64"),
    pl.DataFrame({"a": [1, 2], "b": ["x", None], "c": [[1], [2, 3]]}),
    pa.table({"a": [1, None], "b": ["x", "y"]}),
    None,
]


@pytest.mark.parametrize("data", DATA, ids=lambda data: type(data).__name__)
def test_equal_data_is_encoded_equally_and_unlike_any_other(data):
    assert encoded(loads(dumps(data))) == encoded(data)  # a copy with the same layout
    assert encoded(data) not in {encoded(other) for other in DATA if other is not data}


def test_looking_at_data_does_not_change_its_encoding():
    frame = pd.DataFrame({"a": range(3), "s": ["u", "v", "w"]})
    matrix = sp.csr_matrix(X)
    before = encoded(frame), encoded(matrix)
    _ = frame["s"].to_numpy(), frame.index.is_unique, frame.columns.get_loc("s"), frame.describe()
    _ = matrix.has_sorted_indices, matrix @ np.ones(4), matrix.max()
    assert (encoded(frame), encoded(matrix)) == before


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(plain_values, plain_values)
def test_encodings_are_equal_exactly_where_values_and_types_are(a, b):
    assert (encoded(a) == encoded(b)) == (exact(a) == exact(b))


def exact(value):
    if isinstance(value, float):
        return "float", np.float64(value).tobytes()
    if isinstance(value, (list, tuple)):
        return type(value), [exact(part) for part in value]
    if isinstance(value, dict):
        return dict, [(exact(name), exact(part)) for name, part in value.items()]
    return type(value), value


def test_the_data_is_read_once_for_as_long_as_its_owner_lives(monkeypatch):
    from anyfold._plan import canonical

    folds = af.Folds(X, Y, cv=3)
    sizes = []
    hash_of = canonical._bytes_of
    monkeypatch.setattr(canonical, "_bytes_of", lambda array: sizes.append(array.size) or hash_of(array))
    plans = {
        f"m{n}": ModelPlan(
            LogisticRegression(C=n), make_scorer_for("m", SVC(), None, raise_errors=False), False, {}, {}
        )
        for n in range(1, 5)
    }
    leaves = [Leaf(TaskKey(name, 0, fold)) for name in plans for fold in range(3)]
    for identity in ("a", "a", "b"):
        content_keys(leaves, plans, folds, identity, Conditions(**SAME))
    assert sizes.count(X.size) == 2


# Across processes

SCRIPT = """
    import functools, sys
    import numpy as np, pandas as pd, polars as pl
    sys.path.insert(0, {root!r})
    from tests.journal.test_content_keys import DATA, Holder, digest_of, encoded
    from sklearn.preprocessing import FunctionTransformer

    LIMITS = {{"low", "high", "middle", "none"}}

    class Model(Holder):
        words = frozenset(["a", "b", "c", "d"])
        def fit(self, X, y=None):
            if self.value in {{"x", "y", "z", "w"}}:
                return LIMITS
            return self

    for value in (None, LIMITS, lambda x: x in LIMITS, FunctionTransformer(np.log1p), Model):
        print(digest_of(Model(value)))
    for data in DATA:
        print(encoded(data).hex())
"""


def test_keys_are_the_same_in_every_process(tmp_path):
    script = tmp_path / "script.py"
    root = Path(__file__).resolve().parents[2]
    script.write_text(textwrap.dedent(SCRIPT.format(root=str(root))))
    said = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        said.append(done.stdout.split())
    assert len(said[0]) == 5 + len(DATA) == len(set(said[0]))
    assert said[0] == said[1]


# For people


def test_a_model_is_described_by_its_classes():
    assert describe_model(RandomForestClassifier()) == "RandomForestClassifier"
    pipeline = make_pipeline(StandardScaler(), "passthrough", SVC())
    assert describe_model(pipeline) == "Pipeline(StandardScaler, passthrough, SVC)"
    assert key_of(pipeline).model == "Pipeline(StandardScaler, passthrough, SVC)"
