"""How many bytes an object holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from anyfold._data.kinds import arrays_of

__all__ = ["nbytes_of"]

SAMPLE = 1000
"""Items of an object column or a list that are measured to estimate the rest."""


def nbytes_of(obj: Any) -> int:
    """Estimate how many bytes an object holds in memory.

    Parameters
    ----------
    obj : object
        Array, sparse matrix, data frame or series (pandas, polars), Arrow data, list or None. Items of
        object columns and lists are measured by a sample of about `SAMPLE`.
    """
    if obj is None:
        return 0
    if isinstance(obj, np.ndarray):
        return obj.nbytes + (_sampled(obj.ravel(order="K")) if obj.dtype == object else 0)
    if hasattr(obj, "memory_usage"):  # pandas
        usage = obj.memory_usage(index=True, deep=False)
        columns = (obj.iloc[:, i] for i in range(obj.shape[1])) if obj.ndim == 2 else (obj,)
        texts = sum(_sampled(column.to_numpy()) for column in columns if column.dtype == object)
        return int(usage if obj.ndim == 1 else usage.sum()) + texts
    if hasattr(obj, "estimated_size"):  # polars
        return int(obj.estimated_size())
    if hasattr(obj, "nnz"):  # scipy.sparse
        return sum(array.nbytes for array in arrays_of(obj))
    if isinstance(obj, list | tuple):
        return sys.getsizeof(obj) + _sampled(obj)
    return int(getattr(obj, "nbytes", None) or sys.getsizeof(obj))


def _sampled(items: Sequence[Any] | np.ndarray) -> int:
    sample = items[:: max(1, len(items) // SAMPLE)]
    sizes = sum(nbytes_of(item) if isinstance(item, list | tuple) else sys.getsizeof(item) for item in sample)
    return sizes * len(items) // len(sample) if len(sample) else 0
