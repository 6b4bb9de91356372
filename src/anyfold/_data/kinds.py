"""What each kind of data allows: to be kept for many tasks, to be made read-only, to be copied.

A kept object is shared by every task that asks for it, so each task gets a guard: a wrapper of its own
whose mutation cannot reach the kept object. Kinds that cannot be guarded are never kept.

===============================  ===========================================  =========================
kind                             guard                                        writing to it
===============================  ===========================================  =========================
array                            new read-only view                           raises
pandas                           shallow copy, blocks read-only               copies first, or raises
sparse matrix (array formats)    shallow copy, arrays read-only               raises
polars                           clone                                        copies first
list of immutable items          new list                                     changes that list only
Arrow data, scalars, None        itself, immutable
anything else                    none
===============================  ===========================================  =========================
"""

from __future__ import annotations

import copy
import datetime
import decimal
import fractions
import operator
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from anyfold._data.layout import copy_array
from anyfold._data.serialize import dumps, loads

__all__ = ["arrays_of", "freeze", "guard", "is_guardable", "is_readonly_error", "private_copy", "unchanged"]

T = TypeVar("T")

SCALARS = frozenset(
    {str, bytes, bool, int, float, complex, type(None), datetime.date, datetime.time, datetime.datetime}
    | {datetime.timedelta, datetime.timezone, decimal.Decimal, fractions.Fraction}
)
PANDAS_SCALARS = frozenset({"Interval", "NAType", "NaTType", "Period", "Timedelta", "Timestamp"})
SPARSE_FORMATS = frozenset({"csr", "csc", "bsr", "coo", "dia"})
ARRAYS = (np.ndarray, np.matrix, np.recarray)


def is_guardable(obj: Any) -> bool:
    """Return whether an object may be kept and given to many tasks; looks at every item of object columns."""
    if type(obj) in ARRAYS:
        return _is_plain(obj)
    if _is_pandas(obj):
        return all(map(_is_plain, arrays_of(obj)))
    if _is_sparse(obj):
        return obj.format in SPARSE_FORMATS and all(map(_is_plain, arrays_of(obj)))
    if _is_polars(obj):
        dtypes = obj.dtypes if hasattr(obj, "dtypes") else [obj.dtype]
        return not any("Object" in str(dtype) for dtype in dtypes)
    if type(obj) is list:
        return _are_scalars(obj)
    return _is_arrow(obj) or _are_scalars([obj])


def guard(obj: T) -> T:
    """Return what one task may hold of a kept object that `is_guardable`."""
    guarded: T = _guard(obj)
    return guarded


def freeze(obj: T) -> T:
    """Make fresh data read-only in place, down to the memory's owner, and return it.

    For what was just cut or built: the arrays that it is a view of are made read-only too.
    """
    for array in arrays_of(obj):
        part: Any = array
        while isinstance(part, np.ndarray):
            part.flags.writeable = False
            part = part.base
    return obj


def private_copy(obj: T) -> T:
    """Return a deep copy that can be written to and has the same memory layout."""
    copied: T = _private_copy(obj)
    return copied


def arrays_of(obj: Any) -> Iterator[np.ndarray]:
    """Yield the arrays that hold an object's data."""
    if isinstance(obj, np.ndarray):
        yield obj
    elif _is_pandas(obj):
        for block in obj._mgr.arrays:
            yield from _arrays_of_block(block)
    elif _is_sparse(obj):
        yield from _arrays_in(vars(obj).values())


def unchanged(obj: Any) -> Callable[[], bool]:
    """Return what tells later whether data is still what it is now, though its memory is read-only.

    Columns can be added to a frame and other arrays put into a sparse matrix without writing to memory.
    Of kinds of data that are not known it says that they have changed.
    """
    if isinstance(obj, np.ndarray):
        before = _place(obj)
        return lambda: _place(obj) == before
    if _is_pandas(obj):
        frame = obj.copy(deep=False)
        return lambda: _is_same_frame(frame, obj)
    if _is_sparse(obj):
        parts = obj.shape, list(map(_place, arrays_of(obj)))
        return lambda: parts == (obj.shape, list(map(_place, arrays_of(obj))))
    if _is_polars(obj):
        clone = obj.clone()
        return lambda: bool(obj.equals(clone))
    if type(obj) is list:
        items = list(obj)
        return lambda: len(items) == len(obj) and all(map(operator.is_, items, obj))
    return lambda: _is_arrow(obj) or _are_scalars([obj])


def _place(array: np.ndarray) -> tuple[Any, ...]:
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype


def _is_same_frame(one: Any, other: Any) -> bool:
    blocks, others = one._mgr.arrays, other._mgr.arrays
    if len(blocks) == len(others) and all(isinstance(block, np.ndarray) for block in (*blocks, *others)):
        has_same_labels = all(a.equals(b) for a, b in zip(one.axes, other.axes, strict=True))
        if has_same_labels and list(map(_place, blocks)) == list(map(_place, others)):
            return True
    return bool(one.equals(other))


READ_ONLY = re.compile(r"read[- ]?only|WRITEABLE|not writ(e)?able", re.IGNORECASE)


def is_readonly_error(error: BaseException) -> bool:
    """Return whether an exception, or one that it came from, says that read-only data was written to.

    Numpy, scipy, pandas and Cython's memory views say so in the text of a `ValueError`; the buffer
    protocol of Python raises `BufferError` or `TypeError`.
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, ValueError | TypeError | BufferError) and READ_ONLY.search(str(current)):
            return True
        pending += [current.__cause__, current.__context__]
        pending += current.exceptions if isinstance(current, BaseExceptionGroup) else []
    return False


def _private_copy(obj: Any) -> Any:
    if type(obj) is np.ndarray and obj.size > 0 and not obj.dtype.hasobject:
        return copy_array(obj)
    return loads(dumps(obj))


def _guard(obj: Any) -> Any:
    if type(obj) in ARRAYS:
        return _read_only(obj)
    if _is_pandas(obj):
        return _guard_pandas(obj)
    if _is_sparse(obj):
        return _guard_sparse(obj)
    if _is_polars(obj):
        return obj.clone()
    return obj.copy() if type(obj) is list else obj


def _guard_pandas(obj: Any) -> Any:
    wrapper = obj.copy(deep=False)
    if not _copies_on_write():
        # a shallow copy shares the very arrays: their flags, and what extension arrays set in place
        for block in wrapper._mgr.blocks:
            block.values = _frozen_view(block.values)
    for name, labels in zip(("index", "columns"), obj.axes, strict=False):
        if getattr(wrapper, name) is labels:  # an object with a name of its own that can be set
            setattr(wrapper, name, labels.view())
    return wrapper


def _frozen_view(values: Any) -> Any:
    return _read_only(values) if isinstance(values, np.ndarray) else values.view()


def _guard_sparse(obj: Any) -> Any:
    wrapper = copy.copy(obj)
    for name, value in vars(obj).items():
        if isinstance(value, np.ndarray):
            setattr(wrapper, name, _read_only(value))
        elif isinstance(value, tuple) and any(isinstance(part, np.ndarray) for part in value):
            setattr(wrapper, name, tuple(map(_read_only, value)))
    return wrapper


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _arrays_in(values: Iterable[Any]) -> Iterator[np.ndarray]:
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, tuple):
            yield from _arrays_in(value)


def _arrays_of_block(block: Any) -> Iterator[np.ndarray]:
    if isinstance(block, np.ndarray):
        yield block
        return
    for name in ("_ndarray", "_data", "_mask", "_left", "_right", "_sparse_values"):
        if (part := getattr(block, name, None)) is not None:
            yield from _arrays_of_block(part)


def _is_plain(array: np.ndarray) -> bool:
    if array.dtype == object:
        return _are_scalars(array.ravel(order="K"))
    return not array.dtype.hasobject


def _are_scalars(items: Iterable[Any]) -> bool:
    return all(map(_is_scalar_type, set(map(type, items))))


def _is_scalar_type(cls: type) -> bool:
    if issubclass(cls, np.generic):
        return not issubclass(cls, np.void)
    return cls in SCALARS or (cls.__module__.partition(".")[0] == "pandas" and cls.__name__ in PANDAS_SCALARS)


def _copies_on_write() -> bool:
    pandas = sys.modules["pandas"]
    return int(pandas.__version__.partition(".")[0]) >= 3 or pandas.options.mode.copy_on_write is True


def _is_type(module: str, *names: str) -> Callable[[Any], bool]:
    """Return a check for exact types of a package that may not be imported."""

    def check(obj: Any) -> bool:
        package = sys.modules.get(module)
        return package is not None and any(type(obj) is getattr(package, name, None) for name in names)

    return check


_is_pandas = _is_type("pandas", "DataFrame", "Series")
_is_polars = _is_type("polars", "DataFrame", "Series")
_is_arrow = _is_type("pyarrow", "Table", "RecordBatch", "ChunkedArray")


def _is_sparse(obj: Any) -> bool:
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(obj))
