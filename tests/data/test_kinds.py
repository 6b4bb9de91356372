"""Nothing that a task does to what it is given can reach what is kept for the others."""

from __future__ import annotations

import warnings
from contextlib import suppress

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
from sklearn.cluster import KMeans

from anyfold._data.kinds import freeze, guard, is_guardable, is_readonly_error, private_copy
from anyfold._data.serialize import dumps, serialize
from anyfold._data.sizes import nbytes_of


def frame():
    return pd.DataFrame(
        {
            "float": np.arange(5.0),
            "more": np.arange(5.0),
            "category": pd.Categorical(list("abcab")),
            "Int64": pd.array([1, 2, 3, 4, None], dtype="Int64"),
            "text": list("abcde"),
            "object": pd.Series(list("abcde"), dtype=object),
            "date": pd.date_range("2020", periods=5),
            "zoned": pd.date_range("2020", periods=5, tz="UTC"),
            "arrow": pd.array([1, 2, 3, 4, None], dtype="int64[pyarrow]"),
            "interval": pd.interval_range(0, 5),
        }
    )


def unsorted_csr():
    return sp.csr_matrix(([1.0, 2.0], [3, 1], [0, 2, 2]), shape=(2, 4))


GUARDABLE = {
    "array": lambda: np.arange(12.0).reshape(4, 3),
    "array in F order": lambda: np.asfortranarray(np.arange(12.0).reshape(4, 3)),
    "array of text objects": lambda: np.array(["a", "b", None], dtype=object),
    "structured array": lambda: np.zeros(3, dtype=[("a", "f8"), ("b", "i4")]),
    "data frame": frame,
    "numeric data frame": lambda: pd.DataFrame(np.arange(12.0).reshape(4, 3)),
    "series": lambda: pd.Series(np.arange(4.0), name="s"),
    "series of text": lambda: pd.Series(["a", "b", None]),
    "csr": unsorted_csr,
    "csc array": lambda: sp.csc_array(sp.random(5, 4, 0.5, random_state=0)),
    "coo": lambda: sp.random(5, 4, 0.5, random_state=0, format="coo"),
    "polars frame": lambda: pl.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}),
    "polars series": lambda: pl.Series("a", [1.0, 2.0]),
    "arrow table": lambda: pa.table({"a": [1, 2]}),
    "list of text": lambda: ["a", "b", "c"],
    "list of numbers": lambda: [1, 2.5, None],
    "none": lambda: None,
}

UNGUARDABLE = {
    "list of lists": lambda: [[1, 2], [3, 4]],
    "array of lists": lambda: np.array([[1], [2, 3]], dtype=object),
    "series of lists": lambda: pd.Series([[1], [2]]),
    "masked array": lambda: np.ma.masked_array([1.0, 2.0], mask=[0, 1]),
    "list of lists in rows": lambda: sp.lil_matrix((2, 2)),
    "dictionary": lambda: {"a": 1},
    "object of a class": lambda: object(),
    "polars objects": lambda: pl.Series("o", [object()], dtype=pl.Object),
}


def assert_equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
    elif isinstance(a, pd.Series):
        pd.testing.assert_series_equal(a, b)
    else:
        a, b = serialize(a), serialize(b)
        assert a.stream == b.stream
        assert list(map(bytes, a.buffers)) == list(map(bytes, b.buffers))


@pytest.mark.parametrize("kind", GUARDABLE)
def test_what_can_be_guarded_is_equal_and_of_the_same_type(kind):
    kept = freeze(GUARDABLE[kind]())
    assert is_guardable(kept)
    mine = guard(kept)
    assert_equal(mine, kept)
    assert mine is not kept or isinstance(kept, pa.Table | None)


@pytest.mark.parametrize("kind", UNGUARDABLE)
def test_what_could_be_changed_from_inside_is_not_guardable(kind):
    assert not is_guardable(UNGUARDABLE[kind]())


def attempts(obj):
    """Yield ways to change an object in place."""
    if isinstance(obj, np.ndarray):
        yield lambda: obj.__setitem__(0, obj[-1])
        yield lambda: obj.sort()
        yield lambda: obj.setflags(write=True)
        yield lambda: obj.view().setflags(write=True)
        yield lambda: np.copyto(obj, obj[::-1])
    elif isinstance(obj, pd.DataFrame):
        for column in range(obj.shape[1]):
            name = obj.columns[column]
            yield lambda c=column: obj.iloc.__setitem__((0, c), obj.iloc[1, c])
            yield lambda n=name: obj[n].to_numpy(copy=False).__setitem__(0, obj[n].iloc[1])
            yield lambda n=name: obj[n].array.__setitem__(0, obj[n].iloc[1])
            yield lambda n=name: obj.__setitem__(n, obj[n].iloc[::-1].to_numpy())
            yield lambda n=name: _writable(obj[n].to_numpy(copy=False)).__setitem__(0, obj[n].iloc[1])
        yield lambda: _writable(np.asarray(obj)).fill(0)
        yield lambda: obj.__setitem__("new", 1)
        yield lambda: obj.drop(columns=obj.columns[0], inplace=True)
        yield lambda: setattr(obj.columns, "name", "changed")
        yield lambda: setattr(obj.index, "name", "changed")
        yield lambda: obj.attrs.__setitem__("a", 1)
        yield lambda: obj.__iadd__(1)
        yield lambda: obj.sort_index(ascending=False, inplace=True)
    elif isinstance(obj, pd.Series):
        yield lambda: obj.__setitem__(0, obj[1])
        yield lambda: _writable(obj.to_numpy()).__setitem__(0, obj[1])
        yield lambda: setattr(obj, "name", "changed")
        yield lambda: setattr(obj.index, "name", "changed")
    elif sp.issparse(obj):
        yield lambda: obj.data.__imul__(2)
        yield lambda: obj.__imul__(2)
        yield lambda: obj.data.setflags(write=True)
        yield lambda: obj.sort_indices()
        yield lambda: obj.sum_duplicates()
        yield lambda: obj.eliminate_zeros()
        yield lambda: obj.setdiag(5.0)
        yield lambda: obj.__setitem__((0, 0), 9.0)
        yield lambda: setattr(obj, "data", obj.data * 2)
        yield lambda: obj.resize(1, 1)
    elif isinstance(obj, pl.DataFrame):
        yield lambda: obj.__setitem__((0, "a"), 7.0)
        yield lambda: obj.insert_column(0, pl.Series("new", [1, 2]))
        yield lambda: obj.extend(obj.clone())
        yield lambda: obj.to_numpy(allow_copy=True).__setitem__(0, 7.0)
    elif isinstance(obj, pl.Series):
        yield lambda: obj.__setitem__(0, 7.0)
        yield lambda: obj.append(obj.clone())
        yield lambda: obj.rename("other")
    elif isinstance(obj, list):
        yield lambda: obj.__setitem__(0, "changed")
        yield lambda: obj.append("new")
        yield lambda: obj.clear()


def _writable(array):
    array.flags.writeable = True
    return array


N_ATTEMPTS = {kind: len(list(attempts(make()))) for kind, make in GUARDABLE.items()}


@pytest.mark.parametrize(
    ("kind", "n"), [(kind, n) for kind, count in N_ATTEMPTS.items() for n in range(count)]
)
def test_no_change_reaches_the_kept_object(kind, n):
    kept = freeze(GUARDABLE[kind]())
    neighbour = guard(kept)
    before = dumps(kept), dumps(neighbour)
    mine = guard(kept)
    # to be refused is as good, in whatever way; what matters is that nothing changes
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        list(attempts(mine))[n]()
    assert (dumps(kept), dumps(neighbour)) == before


@pytest.mark.parametrize("kind", GUARDABLE)
def test_a_private_copy_is_equal_in_layout_and_independent(kind):
    original = freeze(GUARDABLE[kind]())
    before = dumps(original)
    mine = private_copy(original)
    assert_equal(mine, original)
    if isinstance(mine, np.ndarray):
        assert mine.flags.writeable
        assert mine.strides == original.strides
        mine[0] = mine[-1]
    elif isinstance(mine, pd.DataFrame):
        mine.iloc[0, 0] = 99.0
        mine.fillna({mine.columns[0]: 0.0}, inplace=True)
    elif sp.issparse(mine):
        mine.data *= 2
        if mine.format != "coo":
            mine.sort_indices()
    elif isinstance(mine, list):
        mine[0] = "changed"
    assert dumps(original) == before


def test_a_private_copy_of_a_data_frame_keeps_the_order_of_its_blocks():
    for values in (np.zeros((6, 3)), np.zeros((6, 3), order="F"), np.zeros((12, 6))[::2, ::2]):
        original = pd.DataFrame(values, copy=False)
        copied = private_copy(original)
        assert copied.to_numpy().strides == original.to_numpy().strides
        assert not np.shares_memory(copied.to_numpy(), values)


def test_freezing_reaches_the_owner_of_the_memory():
    view = np.zeros((4, 3)).T[1:]
    freeze(view)
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.view().flags.writeable = True


def read_only_array():
    return freeze(np.random.default_rng(0).random((40, 4)))


def read_only_csr():
    return freeze(unsorted_csr())


WRITES = {
    "item": lambda: read_only_array().__setitem__(0, 1),
    "in place": lambda: read_only_array().__iadd__(1),
    "out": lambda: np.add(1, 1, out=read_only_array()),
    "sort": lambda: read_only_array().sort(),
    "flag": lambda: guard(read_only_array()).setflags(write=True),
    "shuffle": lambda: np.random.default_rng(0).shuffle(read_only_array()),
    "memory view": lambda: memoryview(read_only_array()).cast("B").__setitem__(0, 1),
    "Cython": lambda: KMeans(2, n_init=1, copy_x=False).fit(freeze(sp.random(40, 4, 0.5, format="csr"))),
    "KMeans": lambda: KMeans(2, n_init=1, copy_x=False).fit(read_only_array()),
    "sparse data": lambda: read_only_csr().data.__imul__(2),
    "sparse": lambda: read_only_csr().__imul__(2),
    "sort_indices": lambda: read_only_csr().sort_indices(),
    "sum_duplicates": lambda: read_only_csr().sum_duplicates(),
    "eliminate_zeros": lambda: read_only_csr().eliminate_zeros(),
    "sparse item": lambda: read_only_csr().__setitem__((0, 3), 5.0),
    "pandas values": lambda: freeze(frame())["float"].to_numpy().__setitem__(0, 1.0),
    "pandas in place": lambda: freeze(frame())["object"].to_numpy().__setitem__(0, "x"),
}


@pytest.mark.parametrize("write", WRITES)
def test_an_error_from_writing_to_read_only_data_is_recognised_also_inside_others(write):
    with pytest.raises((ValueError, TypeError)) as caught:
        WRITES[write]()
    assert is_readonly_error(caught.value)

    cause = RuntimeError("the pipeline failed")
    cause.__cause__ = caught.value
    assert is_readonly_error(cause)
    context = KeyError("x")
    context.__context__ = cause
    assert is_readonly_error(context)
    assert is_readonly_error(ExceptionGroup("several", [context]))


def test_other_errors_are_not_taken_for_it():
    looped = ValueError("Input X contains NaN")
    looped.__cause__ = other = RuntimeError("unrelated")
    other.__cause__ = looped
    for error in (
        looped,
        OSError("Read-only file system"),
        ValueError("read the docs"),
        MemoryError(),
        TypeError(),
    ):
        assert not is_readonly_error(error)


@pytest.mark.parametrize("kind", [kind for kind in GUARDABLE if kind not in {"none", "list of numbers"}])
def test_sizes_are_of_the_right_magnitude(kind):
    assert 0 < nbytes_of(GUARDABLE[kind]()) < 5_000


def test_sizes_of_large_data_are_estimated_within_a_fifth():
    n = 20_000
    text = [f"a text of row {i:06d}" for i in range(n)]
    per_text = text[0].__sizeof__()
    for obj, expected in (
        (np.zeros((n, 3)), n * 24),
        (np.zeros((n, 3), dtype="f4")[::2], n * 6),
        (sp.random(n, 10, 0.5, format="csr"), n * 5 * 12 + n * 4),
        (text, n * (8 + per_text)),
        (np.array(text, dtype=object), n * (8 + per_text)),
        (pd.DataFrame({"a": np.zeros(n), "t": pd.Series(text, dtype=object)}), n * (16 + per_text)),
        (pd.Series(text, dtype="string[pyarrow]"), n * (len(text[0]) + 8)),
        (pl.DataFrame({"a": np.zeros(n), "t": text}), n * (8 + len(text[0]))),
        (pa.table({"t": text}), n * (len(text[0]) + 4)),
        ([text[:10]] * 1000, 1000 * (8 + 10 * (8 + per_text))),
    ):
        assert abs(nbytes_of(obj) - expected) < 0.2 * expected, type(obj)
    assert nbytes_of(None) == 0
