"""The training and test data of a fold, cut once per process and read-only."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from anyfold._data.cache import Cache
from anyfold._data.kinds import arrays_of, freeze, guard, is_guardable, private_copy
from anyfold._data.memory import available_memory, format_bytes
from anyfold._data.sizes import nbytes_of

__all__ = ["FoldSlices", "check_slices_fit", "default_cache_limit", "set_cache_limit", "slices"]

KEPT = 64
"""Folds, at most; the bound in bytes is usually met first."""

SMALL = 64 * 2**20
"""Bytes of slices up to which more than the current fold is kept."""

SMALL = 64 * 2**20
"""Bytes of slices up to which more than the current fold is kept."""

CACHE_SHARE = 0.25
"""Share of the available memory that the slices kept by all workers of a host may take."""


@dataclass(frozen=True, slots=True)
class FoldSlices:
    """What one fold trains and tests on."""

    X_train: Any
    y_train: Any
    X_test: Any
    y_test: Any


def slices(
    data_id: Hashable,
    fold: int,
    X: Any,
    y: Any,
    train: np.ndarray,
    test: np.ndarray,
    *,
    pairwise: bool,
    writable: bool = False,
) -> FoldSlices:
    """Return the data of a fold, as scikit-learn's cross-validation would cut it.

    Parameters
    ----------
    data_id : hashable
        What identifies X, y and the splits.
    fold : int
        Number of the fold.
    X, y : array-like of shape (n_samples, ...)
        Shared data, which nothing else writes to; y may be None.
    train, test : ndarray of shape (n_train,) and (n_test,)
        Indices of the samples.
    pairwise : bool
        Whether X is a square kernel or distance matrix, cut along both axes.
    writable : bool, default=False
        Whether to cut private data that may be written to.

    Returns
    -------
    FoldSlices
        Unless ``writable``: read-only, kept for the next task, in wrappers that belong to this caller.

    Raises
    ------
    ValueError
        If ``pairwise`` and X is not square.
    """
    if not writable:
        kept = _kept.get(
            (data_id, fold, pairwise),
            lambda: _build(_cut(X, y, train, test, pairwise=pairwise)),
            lambda: int(_bytes_per_sample(X, y) * (len(train) + len(test))),
        )
        if kept is not None:
            return _each(guard, kept)
    return _each(_private, _cut(X, y, train, test, pairwise=pairwise))


def set_cache_limit(nbytes: int | None, n_folds: int = 1) -> None:
    """Set how much this process keeps.

    Parameters
    ----------
    nbytes : int or None
        Bytes of all slices; None for `default_cache_limit` of all processors.
    n_folds : int, default=1
        Folds that are worked on at once, which are kept though they are not small.
    """
    _kept.resize(default_cache_limit(os.cpu_count() or 1) if nbytes is None else nbytes, n_folds)


def default_cache_limit(n_workers: int) -> int:
    """Return the bytes of slices that each worker keeps: a quarter of the available memory, shared out."""
    return int(CACHE_SHARE * available_memory()) // max(1, n_workers)


def check_slices_fit(X: Any, y: Any, fold_sizes: Sequence[tuple[int, int]], n_workers: int) -> str | None:
    """Return a warning's text where the slices that workers hold at a time exceed the available memory.

    Parameters
    ----------
    X, y : array-like of shape (n_samples, ...)
        The data; y may be None.
    fold_sizes : sequence of (int, int)
        Number of training and test samples of each fold.
    n_workers : int
        How many workers hold one fold's slices each.
    """
    per_worker = int(_bytes_per_sample(X, y) * max((sum(sizes) for sizes in fold_sizes), default=0))
    available = available_memory()
    if per_worker * n_workers <= available:
        return None
    if n_workers == 1:
        return (
            f"the slices of one fold need {format_bytes(per_worker)}, and {format_bytes(available)} are "
            "available: use a smaller data type"
        )
    fitting = max(1, available // per_worker)
    return (
        f"{n_workers} workers need {format_bytes(per_worker)} each for the slices of one fold, "
        f"{format_bytes(per_worker * n_workers)} together, and {format_bytes(available)} are available: "
        f"set n_jobs={fitting} or use a smaller data type"
    )


def _bytes_per_sample(X: Any, y: Any) -> float:
    from anyfold._compat import num_samples

    return (nbytes_of(X) + nbytes_of(y)) / max(1, num_samples(X))


_kept: Cache[FoldSlices | None] = Cache(KEPT, default_cache_limit(os.cpu_count() or 1), SMALL)


def _build(fold: FoldSlices) -> tuple[FoldSlices | None, int]:
    """Return slices to keep and their size, or None for a kind that cannot be guarded."""
    parts = _parts(fold)
    if not all(map(is_guardable, parts)):
        return None, 0
    return _each(freeze, fold), sum(map(nbytes_of, parts))


def _cut(X: Any, y: Any, train: np.ndarray, test: np.ndarray, *, pairwise: bool) -> FoldSlices:
    # the semantics of sklearn.utils.metaestimators._safe_split
    from anyfold._compat import safe_indexing

    if pairwise:
        if not hasattr(X, "shape"):
            raise ValueError(
                "Precomputed kernels or affinity matrices have to be passed as arrays or sparse matrices."
            )
        if X.shape[0] != X.shape[1]:
            raise ValueError("X should be a square kernel matrix")
        X_train, X_test = X[np.ix_(train, train)], X[np.ix_(test, train)]
    else:
        X_train, X_test = safe_indexing(X, train), safe_indexing(X, test)
    if y is None:
        return FoldSlices(X_train, None, X_test, None)
    return FoldSlices(X_train, safe_indexing(y, train), X_test, safe_indexing(y, test))


def _private(part: Any) -> Any:
    """Return a slice that shares nothing with the data it was cut from."""
    fresh = is_guardable(part) and all(array.flags.writeable for array in arrays_of(part))
    return part if fresh else private_copy(part)


def _parts(fold: FoldSlices) -> list[Any]:
    return [getattr(fold, field.name) for field in fields(fold)]


def _each(function: Any, fold: FoldSlices) -> FoldSlices:
    return FoldSlices(*map(function, _parts(fold)))
