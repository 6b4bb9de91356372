"""Which types are pickled in a way of our own, and why.

=====================  =============================================================================
``numpy.ndarray``      keeps its layout, and its memory stays out of the pickle whatever its dtype
``numpy.memmap``       the same; restored as a plain array, since its file stays where it was
``matrix, recarray``   the same, viewed as their class again
CSR, CSC and BSR       what scipy notes about their indices on first use is noted before pickling,
                       so that merely looking at a matrix does not change its pickle
blocks of pandas       pickling makes strided ones contiguous; here they stay as they are
arrays, types of it    what pandas caches about them on first use stays out, so that merely looking
                       at a frame does not change its pickle
polars                 frames and series of flat types go through Arrow, whose memory can be shared;
                       polars' own pickle is a copy inside the stream
=====================  =============================================================================

Left to their own pickling on purpose: ``numpy.ma.MaskedArray`` (keeps C and F order), other subclasses
of ndarray, the rest of pandas (arrays and Arrow memory) and pyarrow (its buffers stay out already).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from anyfold._data.layout import reduce_array, reduce_subclass

__all__ = ["reducers"]

Reducers = Mapping[type, Callable[[Any], Any]]


def reducers(*, in_band: bool) -> Reducers:
    """Return the reducers for what is imported by now; ``in_band`` as in `layout.reduce_array`."""
    table = dict(_numpy_reducers(in_band))
    for name, found in _found.items():
        # a package that is not imported has no objects, and is not imported for this
        module = sys.modules.get(name)
        if not found and module is not None and not _is_being_imported(module):
            class_names, reduce = _FOREIGN[name]
            classes = (getattr(module, class_name, None) for class_name in class_names)
            found.update((cls, reduce) for cls in classes if cls is not None)
        table.update(found)
    return table


def _is_being_imported(module: Any) -> bool:
    return bool(getattr(module.__spec__, "_initializing", False))


@cache
def _numpy_reducers(in_band: bool) -> Reducers:
    array = partial(reduce_array, in_band=in_band)
    return {
        np.ndarray: array,
        np.memmap: lambda memmap: array(memmap.view(np.ndarray)),
        np.matrix: reduce_subclass,
        np.recarray: reduce_subclass,
    }


def _reduce_compressed(matrix: Any) -> Any:
    matrix.has_canonical_format  # noqa: B018  notes has_sorted_indices on the way
    return matrix.__reduce_ex__(5)


def _reduce_block(block: Any) -> Any:
    restore, (_, *others) = block.__reduce_ex__(5)
    return restore, (block.values, *others)


def _reduce_without_cache(obj: Any) -> Any:
    restore, arguments, *rest = obj.__reduce_ex__(5)
    if not rest:
        return restore, arguments
    state, *others = rest
    return restore, arguments, _without_cache(state) or None, *others


def _without_cache(state: Any) -> Any:
    if isinstance(
        state, tuple
    ):  # dtype, array, and attributes, which some versions leave out if there are none
        return *map(_without_cache, state), *([{}] if len(state) == 2 else [])
    if isinstance(state, dict):
        return {key: value for key, value in state.items() if key != "_cache"}
    return state


def _reduce_polars(data: Any) -> Any:
    return _reduce_polars_series(data) if hasattr(data, "dtype") else _reduce_polars_frame(data)


def _reduce_polars_frame(frame: Any) -> Any:
    if frame.width == 0 or not all(map(_goes_through_arrow, frame.dtypes)):
        return frame.__reduce_ex__(5)
    return _restore_polars_frame, (frame.to_arrow(),)


def _reduce_polars_series(series: Any) -> Any:
    if not _goes_through_arrow(series.dtype):
        return series.__reduce_ex__(5)
    return _restore_polars_series, (series.name, series.to_arrow())


def _goes_through_arrow(dtype: Any) -> bool:
    import polars as pl

    flat = (pl.Boolean, pl.String, pl.Binary, pl.Date, pl.Datetime, pl.Duration, pl.Time)
    return find_spec("pyarrow") is not None and (dtype.is_integer() or dtype.is_float() or dtype in flat)


def _restore_polars_frame(table: Any) -> Any:
    import polars as pl

    return pl.from_arrow(table, rechunk=False)


def _restore_polars_series(name: str, array: Any) -> Any:
    import polars as pl

    return pl.Series(name, pl.from_arrow(array, rechunk=False))


_COMPRESSED = "csr_array csr_matrix csc_array csc_matrix bsr_array bsr_matrix"
_PANDAS_ARRAYS = (
    "ArrowExtensionArray ArrowStringArray BooleanArray Categorical DatetimeArray FloatingArray IntegerArray "
    "IntervalArray NumpyExtensionArray PeriodArray SparseArray StringArray TimedeltaArray"
)
_PANDAS_DTYPES = (
    "ArrowDtype BooleanDtype CategoricalDtype DatetimeTZDtype Float32Dtype Float64Dtype Int8Dtype Int16Dtype "
    "Int32Dtype Int64Dtype IntervalDtype PeriodDtype SparseDtype StringDtype UInt8Dtype UInt16Dtype "
    "UInt32Dtype UInt64Dtype"
)
_FOREIGN: dict[str, tuple[list[str], Callable[[Any], Any]]] = {
    "scipy.sparse": (_COMPRESSED.split(), _reduce_compressed),
    "pandas.core.internals.blocks": (["NumpyBlock", "NumericBlock", "ObjectBlock"], _reduce_block),
    "pandas.arrays": (_PANDAS_ARRAYS.split(), _reduce_without_cache),
    "pandas": (_PANDAS_DTYPES.split(), _reduce_without_cache),
    "polars": (["DataFrame", "Series"], _reduce_polars),
}
_found: dict[str, dict[type, Callable[[Any], Any]]] = {name: {} for name in _FOREIGN}
