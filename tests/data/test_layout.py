"""Arrays come back with their bytes, dtype and layout, whatever these are."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anyfold._data.layout import ALIGNMENT, MAX_SPREAD, copy_array
from anyfold._data.serialize import deserialize, dumps, loads, serialize

DTYPES = [
    "f8", ">f8", "<f4", ">f4", "f2", "g", "c16", ">c16", "i1", ">i2", "i8", "u4", "?", "M8[ns]", ">M8[D]",
    "m8[s]", "S3", "U2", ">U2", "V5", [("a", "f8"), ("b", "i2")], [("a", ">f4"), ("b", "U2", (2,))],
]  # fmt: skip


@st.composite
def laid_out_arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays with permuted axes, steps of either sign, repeated and skipped elements."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6))
    n_bytes = int(np.prod(shape)) * dtype.itemsize
    raw = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(0, 2, n_bytes, dtype=np.uint8)
    array = np.frombuffer(raw.tobytes(), dtype=dtype).reshape(shape).copy()
    array = array.transpose(draw(st.permutations(range(array.ndim))))
    array = array[tuple(slice(None, None, draw(st.sampled_from([1, 2, -1, -3]))) for _ in shape)]
    if draw(st.booleans()):
        array = np.broadcast_to(array[..., None], (*array.shape, draw(st.integers(1, 3))))
    return array


def shared(array: np.ndarray) -> np.ndarray:
    serialized = serialize(array)
    restored = deserialize(serialized.stream, serialized.buffers)
    assert isinstance(restored, np.ndarray)
    return restored


def assert_same_content(a: np.ndarray, b: np.ndarray) -> None:
    assert a.dtype == b.dtype
    assert a.dtype.str == b.dtype.str
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes()


def assert_same_flags(a: np.ndarray, b: np.ndarray) -> None:
    assert (a.flags.c_contiguous, a.flags.f_contiguous) == (b.flags.c_contiguous, b.flags.f_contiguous)


def spread(array: np.ndarray) -> float:
    extent = sum((n - 1) * abs(step) for n, step in zip(array.shape, array.strides, strict=True))
    return (extent + array.itemsize) / array.nbytes


@settings(max_examples=400, deadline=None)
@given(laid_out_arrays(), st.data())
def test_slices_of_a_restored_array_have_the_layout_of_slices_of_the_original(array, data):
    index = np.array(data.draw(st.lists(st.integers(0, len(array) - 1), min_size=1, max_size=8)))
    for restored in (shared(array), loads(dumps(array))):
        assert_same_content(array, restored)
        for cut in (lambda a: a[index], lambda a: a[index, ...], lambda a: np.take(a, index, axis=0)):
            a, b = cut(array), cut(restored)
            assert_same_content(a, b)
            assert_same_flags(a, b)


@settings(max_examples=400, deadline=None)
@given(laid_out_arrays())
def test_a_shared_array_keeps_its_strides_unless_it_is_spread_thin(array):
    restored = shared(array)
    if spread(array) <= MAX_SPREAD:
        assert restored.strides == array.strides
        assert_same_flags(array, restored)
    else:
        assert restored.nbytes == np.ascontiguousarray(array).nbytes
    assert serialize(array).nbytes <= MAX_SPREAD * array.nbytes + 1000


@settings(max_examples=200, deadline=None)
@given(laid_out_arrays())
def test_a_shared_array_is_read_only_and_a_loaded_or_copied_one_writable_and_independent(array):
    assert not shared(array).flags.writeable
    for restored in (loads(dumps(array)), copy_array(array)):
        assert_same_content(restored, array)
        assert restored.flags.writeable
        assert not np.shares_memory(restored, array)
        assert_same_flags(restored[[0]], array[[0]])
        if restored.dtype.kind == "f":
            distinct = np.arange(restored.size, dtype=restored.dtype).reshape(restored.shape)
            restored[...] = distinct
            assert restored.tolist() == distinct.tolist()  # every element has memory of its own


def test_arrays_without_gaps_are_shared_without_a_copy_whatever_their_order_and_dtype():
    base = np.arange(24.0).reshape(2, 3, 4)
    dates = np.arange(6).astype("M8[D]").reshape(2, 3)
    for array in (
        base,
        base.T,
        base.transpose(1, 0, 2),
        base[:, ::-1],
        base[::-1, ::-1, ::-1],
        dates,
        dates.T,
    ):
        (buffer,) = serialize(array).buffers
        assert np.shares_memory(np.frombuffer(buffer, np.uint8), array)
        assert np.shares_memory(shared(array), array)


def test_what_lies_between_the_elements_stays_where_it_is():
    table = np.full((50, 4), 7.0)
    table[:, 0] = 1.0
    for array in (table[:, 0], table[:, :1], table[::2]):
        for buffer in serialize(array).buffers:
            assert set(np.frombuffer(buffer, array.dtype)) <= {0.0, *np.unique(array)}
    before = serialize(table[:, 0])
    table[:, 1] = 3.0
    after = serialize(table[:, 0])
    assert list(map(bytes, before.buffers)) == list(map(bytes, after.buffers))
    assert before.stream == after.stream


def test_axes_of_length_one_keep_their_strides():
    array = np.asfortranarray(np.ones((10, 2)))[:, :1]
    assert shared(array).strides == array.strides
    assert shared(np.ones((10, 3))[:, :1]).strides == (24, 8)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0)])
@pytest.mark.parametrize("dtype", ["f8", "M8[s]", "U3", "O", "U0", [("a", "f8")]])
def test_arrays_without_axes_or_elements_come_back(shape, dtype):
    array = np.zeros(shape, dtype=dtype)
    for restored in (shared(array), loads(dumps(array))):
        assert restored.shape == array.shape
        assert restored.dtype == array.dtype
        assert restored.tolist() == array.tolist()


@pytest.mark.parametrize("dtype", ["O", [("a", "O"), ("b", "f8")]])
def test_object_arrays_keep_the_order_of_their_axes(dtype):
    base = np.empty((2, 3, 4), dtype=dtype)
    for position in np.ndindex(base.shape):
        base[position] = ("x", float(position[0])) if dtype != "O" else "x" * position[2]
    for array in (
        base,
        base.T,
        base.transpose(1, 0, 2),
        base[:, ::2],
        base[::-1],
        base[..., ::-1].transpose(1, 2, 0),
    ):
        for restored in (shared(array), loads(dumps(array))):
            assert restored.tolist() == array.tolist()
            assert restored[[0, 1]].strides == array[[0, 1]].strides
            assert_same_flags(restored[[1, 0]], array[[1, 0]])


def test_subclasses_come_back_as_what_they_are():
    matrix = np.arange(12.0).reshape(3, 4).view(np.matrix)
    records = np.rec.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")])
    masked = np.ma.masked_array(np.asfortranarray(np.arange(6.0).reshape(2, 3)), mask=[[0, 1, 0], [0, 0, 1]])
    for array in (matrix, matrix.T, matrix[:, ::2], records, records[::-1], masked):
        for restored in (shared(array), loads(dumps(array))):
            assert type(restored) is type(array)
            assert restored.dtype == array.dtype
            assert restored.tolist() == array.tolist()
            assert_same_flags(restored, array)
    assert shared(records).a.tolist() == [1, 3]


def test_a_memory_mapped_array_comes_back_as_a_plain_array(tmp_path):
    mapped = np.memmap(tmp_path / "x", dtype="f4", mode="w+", shape=(3, 4), order="F")
    mapped[...] = np.arange(12).reshape(3, 4)
    for restored in (shared(mapped), loads(dumps(mapped))):
        assert type(restored) is np.ndarray
        assert restored.strides == mapped.strides
        assert restored.tolist() == mapped.tolist()


def test_one_array_in_two_places_stays_one_array():
    array = np.arange(10.0)[::2]
    first, second = loads(dumps((array, array)))
    assert first is second


def test_read_only_arrays_are_loaded_writable_unlike_with_plain_pickle():
    array = np.arange(5.0)
    array.flags.writeable = False
    assert not pickle.loads(pickle.dumps(array, 5)).flags.writeable
    assert loads(dumps(array)).flags.writeable


def test_elements_that_share_memory_are_separated_before_they_can_be_written_to():
    for array in (
        np.broadcast_to(np.arange(24.0)[::6], (2, 4)),
        np.lib.stride_tricks.sliding_window_view(np.arange(6.0), 3),
    ):
        assert serialize(array).nbytes < 1000
        assert shared(array).strides == array.strides
        for copy in (loads(dumps(array)), copy_array(array)):
            copy[0, 0] = -1.0
            assert (copy == -1.0).sum() == 1


def test_a_copy_starts_at_an_aligned_address():
    assert copy_array(np.ones(1001)[1:]).ctypes.data % ALIGNMENT == 0


def test_the_pickle_of_shared_data_does_not_depend_on_whether_it_may_be_written_to():
    array = np.ones(5)
    before = serialize(array).stream
    array.flags.writeable = False
    assert serialize(array).stream == before
