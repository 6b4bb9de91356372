"""Rows of data cut into partitions, and what is predicted for them put together again.

Where a cut is made decides about last bits: libraries of linear algebra work on blocks of rows, and a row
that comes to lie elsewhere in its block, or at the ragged end, may be summed in another order. A cut at a
multiple of the size of all these blocks leaves each row where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from anyfold.errors import InvalidInputError

__all__ = ["BLOCK", "Rows", "cut_evenly", "put_together", "rows_of", "sliceable"]

BLOCK = 256
"""Rows; what scikit-learn's pairwise distances take at a time, and a multiple of what kernels of BLAS do."""

Rows = tuple[int, int]
"""The first row, and the one behind the last."""


def cut_evenly(start: int, stop: int, n_partitions: int) -> list[Rows]:
    """Cut rows into partitions of about the same size, at multiples of `BLOCK` as far as there are enough.

    Parameters
    ----------
    start, stop : int
        The rows; `start` is a multiple of `BLOCK`.
    n_partitions : int
        How many there should be; fewer where there are fewer rows.
    """
    n_rows = stop - start
    n_partitions = max(1, min(n_partitions, n_rows))
    block = BLOCK
    while block > 1 and n_rows // block < n_partitions:
        block //= 2
    # What is left behind the last whole block goes with it: few rows alone are computed in other ways.
    n_blocks = n_rows // block
    cuts = [start + block * (n_blocks * part // n_partitions) for part in range(n_partitions)]
    return list(zip(cuts, [*cuts[1:], stop], strict=True))


def sliceable(X: Any) -> Any:
    """Return data of which rows can be cut; a sparse matrix that has none becomes one that has."""
    sparse = sys.modules.get("scipy.sparse")
    if sparse is not None and sparse.issparse(X) and X.format not in ("csr", "csc"):
        return X.tocsr()
    return X


def rows_of(X: Any, rows: Rows) -> Any:
    """Return some rows, in the memory layout that all of them have."""
    start, stop = rows
    if hasattr(X, "iloc"):
        return X.iloc[start:stop].copy()  # what it consists of has no gaps then, as in the whole
    part = X[start:stop]
    if isinstance(X, np.ndarray) and X.ndim > 1 and X.flags.f_contiguous and not X.flags.c_contiguous:
        return part.copy(order="F")
    return part


def put_together(parts: Sequence[Any], partitions: Sequence[Rows], X: Any) -> Any:
    """Return what a model would have answered for all rows at once.

    Parameters
    ----------
    parts : sequence
        The answers, in the order of the rows: arrays, sparse matrices, frames or series (pandas, polars),
        lists with one item per row; or lists or tuples of these, as for several outputs.
    partitions : sequence of (int, int)
        The rows of each.
    X : array-like of shape (n_samples, ...)
        Of which these are rows; a pandas index is taken from it where the answers have it too.

    Raises
    ------
    InvalidInputError
        If an answer does not have one entry per row.
    """
    sizes = [stop - start for start, stop in partitions]
    first = parts[0]
    if isinstance(first, list | tuple) and _are_outputs(parts, sizes):
        outputs = [put_together(each, partitions, X) for each in zip(*parts, strict=True)]
        return outputs if isinstance(first, list) else tuple(outputs)
    lengths = [_length(part) for part in parts]
    if lengths != sizes:
        told = next(
            (type(p).__name__, n, size) for p, n, size in zip(parts, lengths, sizes, strict=True) if n != size
        )
        raise InvalidInputError(
            f"the method returned {told[0]} with {told[1]} entries for {told[2]} rows: what does not answer "
            "each row by itself cannot be computed in parts. Call it without anyfold"
        )
    return _joined(list(parts), partitions, X)


def _joined(parts: list[Any], partitions: Sequence[Rows], X: Any) -> Any:
    first = parts[0]
    if isinstance(first, list):
        return [item for part in parts for item in part]
    if isinstance(first, tuple):
        return tuple(item for part in parts for item in part)
    match type(first).__module__.partition(".")[0]:
        case "pandas":
            return _joined_pandas(parts, partitions, X)
        case "polars":
            import polars

            return polars.concat(parts, rechunk=True)
        case "scipy":
            from scipy import sparse

            return sparse.vstack(parts, format=first.format)
    if isinstance(first, np.ma.MaskedArray):
        joined: Any = np.ma.concatenate(parts)  # type: ignore[no-untyped-call]
        return joined
    if not isinstance(first, np.ndarray):
        raise InvalidInputError(
            f"the method returned {type(first).__module__}.{type(first).__qualname__}, and how to put such "
            "parts together is not known. Call it without anyfold"
        )
    if first.ndim > 1 and first.flags.f_contiguous and not first.flags.c_contiguous:
        joined = np.concatenate([part.T for part in parts], axis=-1).T
        return joined if joined.flags.f_contiguous else joined.copy(order="F")
    return np.concatenate(parts)


def _joined_pandas(parts: list[Any], partitions: Sequence[Rows], X: Any) -> Any:
    import pandas as pd

    index = getattr(X, "index", None)
    if isinstance(index, pd.Index) and all(
        part.index.equals(index[start:stop]) for part, (start, stop) in zip(parts, partitions, strict=True)
    ):
        joined = pd.concat(parts)
        joined.index = index[partitions[0][0] : partitions[-1][1]]
        return joined
    counted = all(part.index.equals(pd.RangeIndex(len(part))) for part in parts)
    return pd.concat(parts, ignore_index=counted)


def _are_outputs(parts: Sequence[Any], sizes: Sequence[int]) -> bool:
    """Return whether these lists hold one array per output, not one item per row."""
    return len({len(part) for part in parts}) == 1 and all(
        hasattr(each, "shape") and len(each.shape) > 0 and each.shape[0] == size
        for part, size in zip(parts, sizes, strict=True)
        for each in part
    )


def _length(part: Any) -> int | None:
    if getattr(part, "shape", None) is not None:
        return int(part.shape[0]) if len(part.shape) else None
    return len(part) if hasattr(part, "__len__") else None
