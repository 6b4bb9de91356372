"""Data of every kind, and what a model can see of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["GRID", "KINDS", "N", "describe"]

N = 48


def _frame(**columns: Any) -> Any:
    import pandas as pd

    return pd.DataFrame(
        {
            "number": np.arange(N, dtype=np.float64),
            "text": [f"item {i % 5}" for i in range(N)],
            "category": pd.Categorical([("red", "green", "blue")[i % 3] for i in range(N)]),
            **columns,
        },
        index=np.arange(100, 100 + N),
    )


def _arrow_frame() -> Any:
    import pandas as pd

    words = pd.array([f"item {i % 5}" for i in range(N)], dtype="string[pyarrow]")
    return _frame(arrow=words)


def _polars_frame() -> Any:
    import polars

    return polars.DataFrame(
        {"number": np.arange(N, dtype=np.float64), "text": [f"{i % 5}" for i in range(N)]}
    )


def _sparse(kind: str) -> Any:
    import scipy.sparse

    dense = np.random.default_rng(1).normal(size=(N, 4))
    dense[dense < 0] = 0
    return getattr(scipy.sparse, kind)(dense)


GRID = np.random.default_rng(2).normal(size=(N, 6))

KINDS: dict[str, Callable[[], Any]] = {
    "C-ordered floats": lambda: np.ascontiguousarray(GRID),
    "Fortran-ordered floats": lambda: np.asfortranarray(GRID),
    "single precision": lambda: GRID.astype(np.float32),
    "a strided view": lambda: np.repeat(GRID, 2, axis=1)[:, ::2],
    "integers": lambda: np.arange(N * 2).reshape(N, 2),
    "booleans": lambda: GRID > 0,
    "dates": lambda: np.arange(N).astype("datetime64[D]").reshape(N, 1),
    "fixed-width text": lambda: np.array([[f"w{i % 7}"] for i in range(N)]),
    "objects": lambda: np.array([["a", i] for i in range(N)], dtype=object),
    "a CSR matrix": lambda: _sparse("csr_matrix"),
    "a CSC array": lambda: _sparse("csc_array").tocsr(),
    "a frame with text and categories": _frame,
    "a list of text": lambda: [f"text number {i}" for i in range(N)],
}
if importlib.util.find_spec("pyarrow"):
    KINDS["a frame with Arrow columns"] = _arrow_frame
if importlib.util.find_spec("polars"):
    KINDS["a polars frame"] = _polars_frame


def describe(data: Any) -> tuple[Any, ...]:
    """Return type, layout and content of some data, as far as a model could see them."""
    about: tuple[Any, ...] = (f"{type(data).__module__}.{type(data).__qualname__}",)
    if isinstance(data, np.ndarray):
        layout = (data.flags.c_contiguous, data.flags.f_contiguous)
        content = repr(data.tolist()) if data.dtype.hasobject else data.tobytes().hex()
        about += (str(data.dtype), data.shape, layout, content)
    elif hasattr(data, "indptr"):
        about += tuple(describe(part) for part in (data.data, data.indices, data.indptr))
    elif hasattr(data, "dtypes") and hasattr(data, "index"):
        about += (str(data.dtypes.to_dict()), data.index.tolist(), repr(data.to_dict("list")))
    elif hasattr(data, "to_dict"):
        about += (repr(data.schema), repr(data.to_dict(as_series=False)))
    else:
        about += (repr(data),)
    return about
