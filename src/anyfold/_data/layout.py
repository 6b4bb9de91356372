"""How a numpy array becomes one block of memory and comes back with the layout it had.

Layout is part of the data: BLAS and numpy choose their order of summation by it. Numpy's own pickling
keeps C and F order and turns everything else into C order. Here the block holds the bytes between the
array's lowest and highest address, so that shape, strides and offset restore the very same array:
permuted axes, steps, reversed and repeated axes, overlapping windows.

An array that uses only a small part of those bytes, such as one column of many, is stored compactly in
the order of its axes in memory (numpy's order "K"); its slices still have the same layout.
"""

from __future__ import annotations

from collections.abc import Callable
from pickle import PickleBuffer
from typing import Any

import numpy as np

__all__ = ["ALIGNMENT", "MAX_SPREAD", "Reduction", "copy_array", "reduce_array", "reduce_subclass"]

MAX_SPREAD = 4
"""An array may take up to this many times its own bytes so that its strides are kept."""

ALIGNMENT = 64
"""Bytes; a cache line, and more than any vector instruction asks for."""

Reduction = tuple[Callable[..., Any], tuple[Any, ...]]


def reduce_array(array: np.ndarray, *, in_band: bool) -> Any:
    """Reduce an array for pickling so that its layout comes back.

    Parameters
    ----------
    array : ndarray
        An exact `numpy.ndarray`, or one that may be restored as such.
    in_band : bool
        Whether its bytes go into the pickle itself, to be loaded as an array that can be written to;
        otherwise they stay where they are, as a read-only buffer.

    Returns
    -------
    tuple or str
        What ``__reduce_ex__`` would return.
    """
    dtype = array.dtype
    contiguous = array.flags.c_contiguous or array.flags.f_contiguous
    if dtype.hasobject:
        return array.__reduce_ex__(5) if contiguous else _reduce_objects(array)
    if array.size == 0 or dtype.itemsize == 0:
        return array.__reduce_ex__(5)
    if in_band and contiguous and array.flags.writeable and dtype.kind in "biufc":
        return array.__reduce_ex__(5)  # faster; not for dates, whose byte order it loses
    if not in_band:
        memory, offset, strides = _memory_of(array)
        # always read-only, so that the pickle does not depend on a flag of the array
        return _restore, (PickleBuffer(memory.data.toreadonly()), dtype, array.shape, strides, offset)
    memory, offset, strides = _memory_of(_without_overlap(array))
    if not memory.flags.writeable:
        memory = memory.copy()  # the bytes of read-only memory would be restored as read-only
    return _restore, (PickleBuffer(memory.data), dtype, array.shape, strides, offset)


def copy_array(array: np.ndarray) -> np.ndarray:
    """Return a copy that can be written to and has the same layout."""
    array = _without_overlap(array)
    memory, offset, strides = _memory_of(array)
    return _restore(_aligned_copy(memory), array.dtype, array.shape, strides, offset)


def reduce_subclass(array: np.ndarray) -> Reduction:
    """Reduce a `numpy.matrix` or `numpy.recarray`: an array and the class to view it as."""
    return _restore_subclass, (array.view(np.ndarray), type(array))


def _aligned_copy(source: np.ndarray) -> memoryview:
    memory = np.empty(source.nbytes + ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + source.nbytes]
    copy[...] = source
    return copy.data


def _without_overlap(array: np.ndarray) -> np.ndarray:
    """Return an array in which every element has memory of its own."""
    occupied = array.dtype.itemsize
    for step, n in sorted(
        (abs(step), n) for step, n in zip(array.strides, array.shape, strict=True) if n > 1
    ):
        if step < occupied:
            return array.copy(order="K")
        occupied += (n - 1) * step
    return array


def _memory_of(array: np.ndarray) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """Return bytes, and the offset and strides that find the array in them."""
    if _span(array) > MAX_SPREAD * array.nbytes:
        array = _filled(np.zeros_like(array, order="K", subok=False), array)
    offset = sum((1 - n) * step for n, step in zip(array.shape, array.strides, strict=True) if step < 0)
    memory = _as_bytes(array)
    if memory is None:
        # zeros, so that what lies between the elements is never copied and never differs
        memory = np.zeros(_span(array), dtype=np.uint8)
        _filled(np.ndarray(array.shape, array.dtype, memory.data, offset, array.strides), array)
    return memory, offset, array.strides


def _as_bytes(array: np.ndarray) -> np.ndarray | None:
    """Return the array's own memory where it has no gaps and no element twice, else None."""
    if array.nbytes != _span(array):
        return None
    index: Any = (..., *(slice(None, None, -1 if step < 0 else 1) for step in array.strides))
    upright = array[index]
    upright = upright.transpose(sorted(range(array.ndim), key=upright.strides.__getitem__, reverse=True))
    flat = upright.squeeze()
    return flat.reshape(-1).view(np.uint8) if flat.flags.c_contiguous else None


def _span(array: np.ndarray) -> int:
    """Return the number of bytes from the lowest to the highest address."""
    extents = ((n - 1) * abs(step) for n, step in zip(array.shape, array.strides, strict=True))
    return int(sum(extents)) + array.dtype.itemsize


def _filled(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    target[...] = source
    return target


def _restore(
    buffer: Any, dtype: np.dtype[Any], shape: tuple[int, ...], strides: tuple[int, ...], offset: int
) -> np.ndarray:
    return np.ndarray(shape, dtype, buffer, offset, strides)


def _restore_subclass(array: np.ndarray, subclass: type[np.ndarray]) -> np.ndarray:
    return array.view(subclass)


def _reduce_objects(array: np.ndarray) -> Reduction:
    axes = sorted(range(array.ndim), key=lambda axis: abs(array.strides[axis]), reverse=True)
    inverse = tuple(int(axis) for axis in np.argsort(axes))
    return _restore_objects, (array.transpose(axes).copy(order="C"), inverse)


def _restore_objects(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    return array.transpose(axes)
