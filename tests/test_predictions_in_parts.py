"""What fitted models answer in parts is what they answer at once."""

import os
import threading
import warnings
from itertools import pairwise

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

import anyfold as af
from anyfold._data.rows import BLOCK, cut_evenly, rows_of
from anyfold._plan.splitting import CallCost, Look, Outlook, is_worth_a_look, partitions_worth
from anyfold.errors import (
    AnyfoldError,
    InvalidInputError,
    TimeLimitError,
    UnpicklableModelError,
    UnsupportedFeatureError,
)

rng = np.random.default_rng(0)
X = rng.normal(size=(700, 6))
y = (X[:, 0] + X[:, 1] > 0).astype(int)
TREE = DecisionTreeClassifier(random_state=0, max_depth=4).fit(X, y)


@pytest.fixture(scope="module")
def pool():
    with af.get_executor("multiprocessing", n_jobs=2) as executor:
        yield executor


@pytest.fixture(autouse=True)
def as_many_threads_as_workers_use():
    with threadpool_limits(1):
        yield


class Answers:
    """Has a method that is any function, and was never an estimator."""

    def __init__(self, predict):
        self.predict = predict


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, pd.DataFrame | pd.Series | pl.DataFrame | pl.Series):
        if hasattr(one, "index"):
            assert one.index.equals(other.index)
        return one.equals(other)
    if sp.issparse(one):
        assert one.format == other.format
        return same(one.toarray(), other.toarray())
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        if other.flags.forc:
            assert one.flags.f_contiguous == other.flags.f_contiguous
        return one.tobytes() == other.tobytes()
    return one == other


# ---- the model's own answer --------------------------------------------------------------------


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("model", "method"),
    [
        (LogisticRegression(), "predict_proba"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "decision_function"),
        (MLPRegressor(hidden_layer_sizes=(16,), max_iter=20, tol=1.0, random_state=0), "predict"),
        (KNeighborsClassifier(algorithm="brute"), "kneighbors"),
        (StandardScaler(), "transform"),
        (RandomForestClassifier(5, random_state=0), "predict_proba"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseEstimator) else value,
)
def test_every_bit_is_the_models_own(model, method, dtype, order):
    model.fit(X, y)
    many = np.asarray(rng.normal(size=(BLOCK * 5 + 77, 6)), dtype=dtype, order=order)
    parts = af.predict_partitions(model, many, method=method, n_partitions=4, backend="threads")
    assert same(parts, getattr(model, method)(many))


DATA = {
    "array": X,
    "frame": pd.DataFrame(X, columns=list("abcdef"), index=np.arange(700)[::-1]),
    "frame without an index": pd.DataFrame(X, columns=list("abcdef")),
    "polars": pl.DataFrame(X, schema=list("abcdef")),
    "csr": sp.csr_matrix(np.where(X > 0, X, 0)),
    "csc array": sp.csc_array(np.where(X > 0, X, 0)),
    "coo": sp.coo_matrix(np.where(X > 0, X, 0)),
    "list": X.tolist(),
}


@pytest.mark.parametrize("kind", DATA)
def test_rows_of_every_kind_of_data_are_split(kind, pool):
    data = DATA[kind]
    model = LogisticRegression().fit(data, y)
    for method in ("predict", "predict_proba"):
        parts = af.predict_partitions(model, data, method=method, n_partitions=3, backend=pool)
        assert same(parts, getattr(model, method)(data))


@pytest.mark.parametrize("output", ["pandas", "polars"])
@pytest.mark.parametrize("kind", ["array", "frame", "frame without an index", "polars"])
def test_frames_come_back_with_the_index_that_the_model_gives_them(kind, output):
    scaler = StandardScaler().set_output(transform=output).fit(DATA[kind])
    parts = af.predict_partitions(scaler, DATA[kind], method="transform", n_partitions=3, backend="threads")
    assert same(parts, scaler.transform(DATA[kind]))


def test_text_becomes_a_sparse_matrix():
    words = [f"word{n % 7} word{n % 3}" for n in range(50)]
    model = TfidfVectorizer().fit(words)
    for data in (words, pd.Series(words)):
        parts = af.predict_partitions(model, data, method="transform", n_partitions=3, backend="threads")
        assert same(parts, model.transform(data))


@pytest.mark.parametrize(
    "answer",
    [
        lambda X: [X[:, 0], X[:, :2]],
        lambda X: (X[:, 0].astype(str), X[:, 1] > 0),
        lambda X: [f"{row[0]:.3f}" for row in X],
        lambda X: np.ma.masked_greater(X, 0),
        lambda X: np.asfortranarray(X[:, :3]),
        lambda X: pd.Series(X[:, 0], name="first"),
        lambda X: pl.Series("first", X[:, 0]),
    ],
)
def test_answers_of_every_kind_are_put_together(answer):
    parts = af.predict_partitions(Answers(answer), X, n_partitions=np.int64(3), backend="threads")
    whole = answer(X)
    if isinstance(whole, np.ma.MaskedArray):
        assert (parts == whole).all()
        assert np.array_equal(parts.mask, whole.mask)
    else:
        assert same(parts, whole)


def test_one_row_can_be_asked_for():
    assert same(af.predict_partitions(TREE, X[:1], n_partitions=5, backend="threads"), TREE.predict(X[:1]))


# ---- where it runs -----------------------------------------------------------------------------


MANY = 1 << 17


def pids(X):
    return np.full(len(X), os.getpid())


def test_partitions_are_predicted_by_workers(pool):
    assert os.getpid() not in af.predict_partitions(Answers(pids), X, n_partitions=4, backend=pool)


def test_small_input_is_not_split(pool):
    assert set(af.predict_partitions(Answers(pids), X, backend=pool)) == {os.getpid()}


def test_small_input_is_the_models_own_call():
    calls = []
    model = Answers(lambda data: calls.append((data, threading.current_thread())) or pids(data))
    af.predict_partitions(model, X, backend="threads", n_jobs=2)
    ((data, thread),) = calls
    assert data is X
    assert thread is threading.current_thread()


def test_large_input_of_a_fast_model_is_not_split_after_one_look():
    sizes = []
    model = Answers(lambda data: sizes.append(len(data)) or pids(data))
    af.predict_partitions(model, np.zeros((MANY, 1)), backend="threads", n_jobs=2)
    assert sizes == [MANY // 32, MANY]


def test_large_input_of_a_slow_model_is_split(pool, monkeypatch):
    def slowly(data):
        if os.getpid() == caller:
            raise_clock(1e-3 * len(data))
        return pids(data)

    caller, now = os.getpid(), [0.0]
    raise_clock = lambda seconds: now.__setitem__(0, now[0] + seconds)  # noqa: E731
    for clock in ("perf_counter", "process_time"):
        monkeypatch.setattr(f"anyfold.prediction.{clock}", lambda: now[0])
    answer = af.predict_partitions(Answers(slowly), np.zeros((MANY, 1)), backend=pool)
    assert os.getpid() not in answer
    assert len(answer) == MANY


def test_limits_of_time_need_workers(pool):
    answer = af.predict_partitions(Answers(pids), X, backend=pool, timeout=60)
    assert os.getpid() not in answer


def test_looks_repeat_no_warning():
    def warns(data):
        warnings.warn("told once", UserWarning, stacklevel=2)
        return pids(data)

    with pytest.warns(UserWarning, match="told once") as told:
        af.predict_partitions(Answers(warns), np.zeros((MANY, 1)), backend="threads", n_jobs=2)
    assert len(told) == 1


# ---- the rule ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_rows", "n_numbers", "worth"),
    [(131_071, 100, False), (131_072, 100, True), (10_000, 100_000, True), (2_000, 10_000_000, False)],
)
def test_few_rows_are_looked_at_only_where_each_must_take_long(n_rows, n_numbers, worth):
    assert is_worth_a_look(n_rows, n_numbers) == worth


def test_what_a_call_costs_is_told_from_two_looks():
    cost = CallCost.of(Look(200, wall=0.5, cpu=1.0), Look(100, wall=0.9, cpu=0.3))
    assert cost == CallCost(fixed=pytest.approx(0.1), per_row=pytest.approx(0.002), cores=2.0)


@pytest.mark.parametrize(
    ("seconds", "cores", "n_bytes", "outlook", "splits"),
    [
        (10.0, 1.0, 0, Outlook(lambda: 4, lambda: True), True),
        (0.9, 1.0, 0, Outlook(lambda: 4, lambda: True), False),  # too short
        (2.0, 1.0, 0, Outlook(lambda: 4, lambda: False), False),  # workers would have to be started
        (10.0, 1.0, 0, Outlook(lambda: 4, lambda: False), True),
        (10.0, 4.0, 0, Outlook(lambda: 4, lambda: True), False),  # uses all processors by itself
        (2.0, 1.0, 10**9, Outlook(lambda: 4, lambda: True), False),  # sending the data takes longer
        (10.0, 1.0, 0, Outlook(lambda: 1, lambda: True), False),
    ],
)
def test_rows_are_split_where_it_is_clearly_faster(seconds, cores, n_bytes, outlook, splits):
    cost = CallCost(0.0, seconds / 1000, cores)
    assert (partitions_worth(cost, 1000, n_bytes, outlook, inner_threads=1) is not None) == splits


@pytest.mark.parametrize("n_rows", [1, 7, 255, 1000, 5 * BLOCK + 1])
@pytest.mark.parametrize("n_partitions", [1, 3, 5, 100])
def test_partitions_have_all_rows_in_order_and_are_never_empty(n_rows, n_partitions):
    partitions = cut_evenly(0, n_rows, n_partitions)
    assert len(partitions) == min(n_rows, n_partitions)
    assert partitions[0][0] == 0
    assert partitions[-1][1] == n_rows
    assert all(start < stop for start, stop in partitions)
    assert all(one[1] == other[0] for one, other in pairwise(partitions))


def test_rows_are_laid_out_in_memory_as_the_whole_is():
    table = pd.DataFrame(X)
    for whole in (X, np.asfortranarray(X), table.to_numpy()):
        assert rows_of(whole, (100, 300)).flags.forc
        assert rows_of(whole, (100, 300)).flags.c_contiguous == whole.flags.c_contiguous
    assert rows_of(table, (100, 300)).to_numpy().flags.forc


def test_partitions_begin_with_a_block_and_the_last_has_no_few_rows_alone():
    partitions = cut_evenly(0, 7 * BLOCK + 1, 4)
    assert all(start % BLOCK == 0 for start, _ in partitions)
    assert partitions[-1][1] - partitions[-1][0] > BLOCK


# ---- several models ----------------------------------------------------------------------------


FRAME = pd.DataFrame(X, columns=list("abcdef"), index=[f"row{n}" for n in range(700)])
COLUMNS = {"first": ["a", "b"], "rest": list("cdef")}
LINES = {name: LinearRegression().fit(FRAME[columns], y) for name, columns in COLUMNS.items()}


def test_each_model_answers_from_its_columns_in_a_column_of_its_own(pool):
    frame = af.predict_models(LINES, FRAME, columns=COLUMNS, backend=pool)
    expected = {name: LINES[name].predict(FRAME[columns]) for name, columns in COLUMNS.items()}
    assert frame.equals(pd.DataFrame(expected, index=FRAME.index))


@pytest.mark.parametrize(
    ("data", "columns"),
    [
        (X, {"first": [0, 1], "rest": slice(2, 6)}),
        (sp.csr_matrix(X), {"first": [0, 1], "rest": [2, 3, 4, 5]}),
        (pl.DataFrame(X, schema=list("abcdef")), COLUMNS),
        (FRAME, {"first": FRAME.columns[:2], "rest": np.arange(6) > 1}),
    ],
    ids=["array", "sparse", "polars", "pandas"],
)
def test_columns_are_named_as_scikit_learn_names_them(data, columns):
    lines = {"first": LinearRegression().fit(X[:, :2], y), "rest": LinearRegression().fit(X[:, 2:], y)}
    with warnings.catch_warnings(action="ignore"):  # these were fitted without names
        frame = af.predict_models(lines, data, columns=columns, backend="threads")
    assert np.allclose(frame["first"], lines["first"].predict(X[:, :2]))
    assert np.allclose(frame["rest"], lines["rest"].predict(X[:, 2:]))


def test_what_fit_models_returns_can_predict():
    fitted = af.fit_models({"tree": TREE, "near": KNeighborsClassifier()}, X, y, backend="serial")
    frame = af.predict_models(fitted, X, backend="threads")
    assert np.array_equal(frame["near"], fitted["near"].predict(X))


def test_classes_are_a_second_level_of_columns():
    labels = np.where(y == 1, "yes", "no")
    models = {"tree": DecisionTreeClassifier(random_state=0).fit(X, labels)}
    frame = af.predict_models(models, X, method="predict_proba", backend="serial")
    assert list(frame.columns) == [("tree", "no"), ("tree", "yes")]
    assert frame.columns.names == ["model", "column"]
    assert np.array_equal(frame["tree"].to_numpy(), models["tree"].predict_proba(X))


def test_outputs_are_a_level_of_columns_between():
    several = DecisionTreeClassifier(random_state=0).fit(X, np.column_stack([y, 1 - y, y + 2]))
    models = {"several": several, "one": Answers(pids)}
    frame = af.predict_models({"several": several}, X, method="predict_proba", backend="serial")
    assert list(frame.columns[:3]) == [("several", 0, 0.0), ("several", 0, 1.0), ("several", 1, 0.0)]
    assert np.array_equal(frame["several"][2].to_numpy(), several.predict_proba(X)[2])
    frame = af.predict_models(models, X, backend="serial")
    assert list(frame.columns) == [("several", 0), ("several", 1), ("several", 2), ("one", "")]


def test_classes_stand_beside_outputs_in_the_level_of_columns():
    models = {
        "several": Answers(lambda X: [np.zeros((len(X), 2))] * 2),
        "one": Answers(lambda X: np.zeros((len(X), 2))),
        "lists": Answers(lambda X: [pids(X)] * 2),
        "flat": Answers(pids),
    }
    models["one"].classes_ = np.array(["no", "yes"])
    frame = af.predict_models(models, X, backend="serial")
    assert frame.columns.names == ["model", "output", "column"]
    assert list(frame.columns) == [
        *[("several", output, column) for output in (0, 1) for column in (0, 1)],
        *[("one", "", "no"), ("one", "", "yes"), ("lists", 0, ""), ("lists", 1, ""), ("flat", "", "")],
    ]


def test_a_list_of_numbers_of_numpy_is_one_column():
    numbers = Answers(lambda X: [np.float64(row[0]) for row in X])
    frame = af.predict_models({"numbers": numbers}, X, backend="serial")
    assert frame["numbers"].tolist() == X[:, 0].tolist()
    assert af.predict_partitions(numbers, X, n_partitions=2, backend="serial") == X[:, 0].tolist()


def test_an_answer_without_columns_has_rows_all_the_same():
    class Nothing:
        def transform(self, X):
            return np.zeros((len(X), 0))

    made = af.predict_models({"nothing": Nothing()}, np.zeros((3, 2)), method="transform", backend="serial")
    assert made.shape == (3, 0)


def test_columns_keep_their_types():
    models = {
        "text": Answers(lambda X: np.full(len(X), "a", dtype=object)),
        "whole": Answers(pids),
        "series": Answers(lambda X: pd.Series(pd.Categorical(["a"] * len(X)))),
        "frame": Answers(lambda X: pd.DataFrame({"p": X[:, 0], "n": pids(X)})),
    }
    frame = af.predict_models(models, X, backend="serial")
    assert frame["whole", ""].dtype == pids(X).dtype
    assert isinstance(frame["series", ""].dtype, pd.CategoricalDtype)
    assert frame["frame"].dtypes.tolist() == [np.dtype(float), pids(X).dtype]


# ---- what fails --------------------------------------------------------------------------------


def fails(X):
    raise OSError("no model here")


def leaves(X):
    raise SystemExit(3)


def test_the_models_own_error_is_raised_and_names_its_partition():
    with pytest.raises(OSError, match="no model here") as info:
        af.predict_partitions(Answers(fails), X, n_partitions=3, backend="threads")
    assert info.value.__notes__ == ["raised in predict of model 'answers', partition 0"]
    with pytest.raises(OSError, match="no model here") as info:
        af.predict_models({"good": Answers(pids), "bad": Answers(fails)}, X, backend="threads")
    assert info.value.__notes__[0].startswith("raised in predict of model 'bad'")


def test_what_cannot_be_sent_is_named(pool):
    model = Answers(pids)
    model.lock = threading.Lock()
    with pytest.raises(UnpicklableModelError, match="attribute 'lock', a lock, of model 'answers' cannot be"):
        af.predict_partitions(model, X, n_partitions=2, backend=pool)
    with pytest.raises(UnpicklableModelError, match="attribute 'lock', a lock, of model 'locked' cannot be"):
        af.predict_models({"tree": TREE, "locked": model}, X, backend=pool)
    with pytest.raises(UnpicklableModelError, match="X cannot be sent"):
        af.predict_partitions(TREE, [threading.Lock()] * 9, n_partitions=2, backend=pool)


def test_a_model_cannot_end_the_callers_program():
    with pytest.raises(AnyfoldError, match="SystemExit"):
        af.predict_partitions(Answers(leaves), X, n_partitions=3, backend="threads")


def test_what_does_not_answer_row_by_row_is_told():
    with pytest.raises(InvalidInputError, match=r"returned ndarray with 6 entries for 128 rows"):
        af.predict_partitions(Answers(lambda X: X.mean(axis=0)), X, n_partitions=3, backend="threads")
    with pytest.raises(InvalidInputError, match="answered with float"):
        af.predict_models({"mean": Answers(lambda X: float(X.mean()))}, X, backend="serial")


def test_a_time_limit_that_is_over_is_an_error(pool):
    def hangs(X):
        threading.Event().wait()

    with pytest.raises(TimeLimitError, match="time_limit=1 seconds were over") as info:
        af.predict_partitions(Answers(hangs), X, backend=pool, time_limit=1)
    assert info.value.result == {}


def test_ctrl_c_leaves_what_had_been_answered():
    def interrupted(X):
        raise KeyboardInterrupt

    models = {"quick": Answers(pids), "stopped": Answers(interrupted)}
    with pytest.raises(KeyboardInterrupt) as info:
        af.predict_models(models, X, backend="serial")
    assert list(info.value.result) == [("quick", 0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "predict_probs"}, "no method 'predict_probs'.*did you mean 'predict_proba'"),
        ({"method": "classes_"}, "'classes_' of model .* is no method"),
        ({"n_partitions": 0}, "n_partitions=0: allowed are integers of at least 1"),
        ({"X": X[:0]}, "X is empty"),
        ({"X": 3}, "X is int 3, which has no samples"),
        ({"resources": {"forest": {"gpu": 1}}}, "resources names 'forest'"),
    ],
)
def test_what_cannot_be_predicted_is_told_before_any_work(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        af.predict_partitions(**{"model": TREE, "X": X, "backend": "serial", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": TREE}, "models is DecisionTreeClassifier, not a mapping"),
        ({"models": {}}, "models is empty"),
        ({"columns": ["a"]}, "columns is list, not a mapping"),
        ({"columns": {"tee": [1]}}, r"columns names 'tee', which is no model \(did you mean 'tree'"),
        ({"method": "transform"}, "model 'tree' .* has no method 'transform'"),
    ],
)
def test_what_models_cannot_predict_is_told_before_any_work(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        af.predict_models(**{"models": {"tree": TREE}, "X": X, "backend": "serial", **arguments})


def test_a_journal_is_refused_and_one_for_all_calls_is_not_meant(tmp_path, monkeypatch):
    with pytest.raises(UnsupportedFeatureError, match="keeps scores, no predictions"):
        af.predict_partitions(TREE, X, journal=tmp_path / "journal", backend="serial")
    with pytest.raises(UnsupportedFeatureError, match="keeps scores, no predictions"):
        af.predict_models({"tree": TREE}, X, journal=tmp_path / "journal", backend="serial")
    monkeypatch.setenv("ANYFOLD_JOURNAL", str(tmp_path / "journal"))
    assert len(af.predict_partitions(TREE, X, n_partitions=2, backend="serial")) == len(X)
    assert len(af.predict_models({"tree": TREE}, X, backend="serial")) == len(X)
    assert list(tmp_path.iterdir()) == []
