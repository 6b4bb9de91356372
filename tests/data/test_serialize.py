"""Everything that a user may pass as X, y or a model comes back exactly, layout included."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.utils import _safe_indexing

from anyfold._data.serialize import deserialize, dumps, loads, serialize

ROWS = np.array([4, 0, 2, 5])


def frames() -> dict[str, pd.DataFrame]:
    floats = pd.DataFrame(np.arange(18.0).reshape(6, 3), columns=list("abc"))
    mixed = pd.DataFrame(
        {
            "f": np.arange(6.0),
            "i": np.arange(6),
            "g": np.arange(6.0) * 2,
            "text": ["a", "b", None, "d", "é", ""],
            "object": pd.Series(["x", 1, None, 2.5, (1,), "y"], dtype=object),
            "category": pd.Categorical(list("aabbca"), categories=list("cba"), ordered=True),
            "Int64": pd.array([1, None, 3, 4, 5, 6], dtype="Int64"),
            "boolean": pd.array([True, None, False, True, True, False], dtype="boolean"),
            "date": pd.date_range("2020-01-01", periods=6, tz="Europe/Berlin"),
            "naive": pd.date_range("2020-01-01", periods=6),
            "delta": pd.to_timedelta(np.arange(6), unit="s"),
            "period": pd.period_range("2020-01", periods=6, freq="M"),
            "interval": pd.interval_range(0, 6),
            "arrow": pd.array([1, None, 3, 4, 5, 6], dtype="int32[pyarrow]"),
            "arrow_text": pd.array(["a", None, "c", "d", "e", "f"], dtype="string[pyarrow]"),
            "python_text": pd.array(["a", None, "c", "d", "e", "f"], dtype="string[python]"),
            "sparse": pd.arrays.SparseArray([0.0, 0, 1, 0, 2, 0]),
        },
        index=pd.MultiIndex.from_product([["u", "v"], [1, 2, 3]], names=["k", None]),
    )
    fragmented = floats.copy()
    for name in "xyz":
        fragmented[name] = np.arange(6.0)
    return {
        "floats in C order": floats,
        "floats in F order": pd.DataFrame(np.asfortranarray(floats.to_numpy()), columns=list("abc")),
        "strided": pd.DataFrame(np.arange(72.0).reshape(12, 6)[::2, ::-2]),
        "mixed": mixed,
        "fragmented": fragmented,
        "columns in another order": fragmented[["z", "a", "x"]],
        "rows skipped": floats[::2],
        "several levels of columns": floats.set_axis(
            pd.MultiIndex.from_tuples([("u", 1), ("u", 2), ("v", 1)]), axis=1
        ),
        "no rows": mixed.iloc[:0],
        "no columns": mixed[[]],
    }


def trips(obj):
    serialized = serialize(obj)
    yield deserialize(serialized.stream, serialized.buffers)
    yield loads(dumps(obj))


def assert_same_layout(a, b):
    assert (a.flags.c_contiguous, a.flags.f_contiguous) == (b.flags.c_contiguous, b.flags.f_contiguous)
    assert a.dtype == b.dtype
    assert a.strides == b.strides or not (a.flags.c_contiguous or a.flags.f_contiguous)


@pytest.mark.parametrize("name", list(frames()))
def test_data_frames_come_back_with_dtypes_index_and_layout(name):
    frame = frames()[name]
    for restored in trips(frame):
        pd.testing.assert_frame_equal(restored, frame, check_freq=False)
        assert list(restored.dtypes) == list(frame.dtypes)
        assert_same_layout(restored.to_numpy(), frame.to_numpy())
        rows = ROWS[: len(frame) // 2] if len(frame) < 6 else ROWS
        rows = rows[rows < len(frame)]
        for cut in (
            lambda f, r=rows: f.iloc[r],
            lambda f, r=rows: _safe_indexing(f, r),
            lambda f: f[f.columns[:2]],
        ):
            pd.testing.assert_frame_equal(cut(restored), cut(frame))
            assert_same_layout(cut(restored).to_numpy(), cut(frame).to_numpy())
            assert_same_layout(np.asarray(cut(restored)), np.asarray(cut(frame)))


def test_series_and_indexes_come_back():
    frame = frames()["mixed"]
    for name in frame:
        for restored in trips(frame[name]):
            pd.testing.assert_series_equal(restored, frame[name])
    for index in (frame.index, pd.RangeIndex(5), pd.DatetimeIndex(["2020"]), pd.Index(["a", "b"], name="n")):
        for restored in trips(index):
            pd.testing.assert_index_equal(restored, index)


def sparse_matrices():
    base = sp.random(6, 5, 0.5, random_state=0, dtype="f4")
    for kind in ("csr", "csc", "coo", "bsr", "dia", "lil", "dok"):
        yield getattr(sp, f"{kind}_matrix")(base)
        yield getattr(sp, f"{kind}_array")(base)
    unsorted = sp.csr_matrix(base)
    unsorted.indices[: unsorted.indptr[1]] = unsorted.indices[: unsorted.indptr[1]][::-1].copy()
    unsorted.has_sorted_indices = False
    yield unsorted


@pytest.mark.parametrize("matrix", list(sparse_matrices()), ids=lambda m: type(m).__name__)
def test_sparse_matrices_come_back(matrix):
    for restored in trips(matrix):
        assert type(restored) is type(matrix)
        assert restored.dtype == matrix.dtype
        assert restored.shape == matrix.shape
        assert (restored != matrix).nnz == 0 if matrix.format != "dok" else dict(restored) == dict(matrix)
        for name in ("data", "indices", "indptr"):
            if matrix.format in {"csr", "csc", "bsr"}:
                a, b = getattr(restored, name), getattr(matrix, name)
                assert a.dtype == b.dtype
                assert a.tolist() == b.tolist()
        if hasattr(matrix, "has_sorted_indices"):
            assert restored.has_sorted_indices == matrix.has_sorted_indices


@pytest.mark.parametrize("cls", [sp.csr_matrix, sp.csc_array, sp.bsr_matrix])
def test_looking_at_a_sparse_matrix_does_not_change_its_pickle(cls):
    matrix = cls(sp.random(6, 5, 0.5, random_state=0))
    before = serialize(matrix).stream
    matrix.has_canonical_format, matrix.has_sorted_indices, matrix @ np.ones(5)
    assert serialize(matrix).stream == before


@pytest.mark.parametrize("name", list(frames()))
def test_looking_at_a_data_frame_does_not_change_its_pickle(name):
    frame = frames()[name]
    before = serialize(frame).stream
    frame.to_numpy(), repr(frame), frame.dtypes
    for column in frame:
        series = frame[column]
        (
            series.isna(),
            series.nunique(),
            series.dtype.name,
            repr(series.dtype),
            series.iloc[:1],
            np.asarray(series),
        )
        getattr(series.dtype, "numpy_dtype", None), getattr(series.dtype, "type", None)
        if hasattr(series, "dt"):
            series.dt.year if series.dtype.kind != "m" else series.dt.days
    (
        frame.iloc[:2].groupby(frame.index[:2]).size(),
        frame.index.is_unique,
        frame.columns.get_indexer(frame.columns),
    )
    assert serialize(frame).stream == before


def polars_frames():
    flat = pl.DataFrame(
        {
            "i": [1, None, 3],
            "f": [1.0, float("nan"), None],
            "s": ["a", None, "a longer text that is not inlined"],
            "b": [True, None, False],
            "d": pl.Series([1, 2, None]).cast(pl.Date),
            "t": pl.Series([1, 2, None]).cast(pl.Datetime("us", "UTC")),
        }
    )
    nested = pl.DataFrame(
        {
            "c": pl.Series(["u", "v", "u"], dtype=pl.Categorical),
            "e": pl.Series(["u", "v", "u"], dtype=pl.Enum(["v", "u"])),
            "l": [[1], [2, 3], None],
            "r": [{"a": 1}, {"a": 2}, {"a": None}],
        }
    )
    yield from (
        flat,
        nested,
        flat.hstack(nested),
        pl.concat([flat, flat], rechunk=False),
        flat[:0],
        flat.select(),
    )


@pytest.mark.parametrize("frame", list(polars_frames()), ids=lambda f: f"{f.shape}")
def test_polars_frames_and_series_come_back(frame):
    for restored in trips(frame):
        assert restored.schema == frame.schema
        assert restored.equals(frame, null_equal=True)
        if len(frame):
            assert _safe_indexing(restored, np.array([2, 0])).equals(_safe_indexing(frame, np.array([2, 0])))
    for series in frame:
        for restored in trips(series):
            assert restored.name == series.name
            assert restored.dtype == series.dtype
            assert restored.equals(series, null_equal=True)


def test_polars_numbers_have_the_layout_they_had():
    frame = pl.DataFrame(np.arange(12.0).reshape(4, 3))
    for restored in trips(frame):
        assert_same_layout(restored.to_numpy(), frame.to_numpy())
        assert_same_layout(restored[[2, 0]].to_numpy(), frame[[2, 0]].to_numpy())


@pytest.mark.parametrize(
    "obj",
    [
        ["a text", "another", ""],
        [[1, 2], [3, 4]],
        [b"x", None, 1.5],
        ({"a": [1]}, {2, 3}),
        pa.table({"a": [1, None], "b": ["x", "y"]}),
        pa.chunked_array([[1, 2], [3]]),
    ],
    ids=lambda obj: type(obj).__name__,
)
def test_lists_and_arrow_data_come_back(obj):
    for restored in trips(obj):
        assert type(restored) is type(obj)
        assert restored == obj


def test_the_memory_of_large_data_stays_out_of_the_pickle():
    n = 20_000
    text = [f"the text of row {i}" for i in range(n)]
    for obj in (
        np.zeros((n, 2)),
        np.arange(n).astype("M8[s]"),
        pd.DataFrame(
            {
                "a": np.zeros(n),
                "text": pd.array(text, dtype="string[pyarrow]"),
                "date": pd.date_range("2020", periods=n, freq="s"),
            }
        ),
        pd.Series(pd.Categorical(np.arange(n))),
        sp.random(n, 10, 0.1, format="csr", random_state=0),
        pl.DataFrame({"a": np.zeros(n), "text": text}),
        pl.Series("text", text),
        pa.table({"text": text}),
    ):
        serialized = serialize(obj)
        assert len(serialized.stream) < 5_000, type(obj)
        assert serialized.nbytes > 10 * len(serialized.stream)


def test_what_is_loaded_can_be_written_to():
    frame = loads(dumps(frames()["mixed"]))
    frame.iloc[0, 0] = 7.0
    frame["date"].array[0] = frame["date"].iloc[1]
    matrix = loads(dumps(sp.eye(3, format="csr")))
    matrix.data *= 2
    assert frame.iloc[0, 0] == 7.0
    assert matrix[0, 0] == 2


def test_a_fitted_estimator_comes_back_and_predicts_the_same():
    X, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=1000).fit(X, y)
    restored = loads(dumps(model))
    assert restored.coef_.tobytes() == model.coef_.tobytes()
    assert restored.predict_proba(X).tobytes() == model.predict_proba(X).tobytes()


def test_the_pickle_of_an_unchanged_object_does_not_change():
    for obj in (*frames().values(), *sparse_matrices(), *polars_frames()):
        assert serialize(obj).stream == serialize(obj).stream


LOCAL = """
import sys
from dataclasses import dataclass
from anyfold._data.serialize import dumps

@dataclass
class Model:
    weight: float
    def predict(self, x): return helper(x) * self.weight

def helper(x): return x + 1

def make(n):
    class Inner:
        def value(self): return n
    return Inner()

sys.stdout.buffer.write(dumps((Model(2.0), lambda x: helper(x), make(5))))
"""


def test_what_is_defined_in_main_or_inside_a_function_travels_by_value():
    data = subprocess.run([sys.executable, "-c", LOCAL], capture_output=True, check=True).stdout
    model, function, inner = loads(data)
    assert (model.predict(3), function(3), inner.value()) == (8.0, 4, 5)


def test_layout_survives_the_way_to_another_process():
    array = np.arange(120.0).reshape(4, 5, 6).transpose(2, 0, 1)[:, ::-1]
    program = (
        "import sys; from anyfold._data.serialize import loads; print(loads(sys.stdin.buffer.read()).strides)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], input=dumps(array), capture_output=True, check=True
    )
    assert answer.stdout.decode().strip() == str(array.strides)
