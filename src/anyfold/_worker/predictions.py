"""Has fitted models answer for some rows or columns: what a leaf of a prediction does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anyfold import _compat
from anyfold._data.kinds import guard, is_guardable, private_copy
from anyfold._data.rows import Rows, rows_of
from anyfold._plan.task import Leaf, TaskKey
from anyfold._worker.execute import Produced, in_stage
from anyfold.executors.base import Shared

__all__ = ["Asked", "PartKey", "Predictions"]


@dataclass(frozen=True, slots=True, order=True)
class PartKey(TaskKey):
    """The key of what one model answers for one partition."""

    def __str__(self) -> str:
        return self.names(self.model, [self.fold])

    @classmethod
    def names(cls, model: str, folds: Sequence[int]) -> str:
        """Name several partitions of one model."""
        noun = "partition" if len(folds) == 1 else "partitions"
        return f"model {model!r}, {noun} {', '.join(map(str, sorted(folds)))}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What one leaf asks of a model."""

    model: Shared[Any]
    rows: Rows | None = None
    """None for all."""
    columns: Any = None
    """As scikit-learn names columns; None for all."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """The work of `predict_partitions` and `predict_models`."""

    X: Shared[Any]
    method: str

    def run(self, leaf: Leaf, *, writable: bool) -> Produced:
        """Call the method of a model on its part of the data."""
        assert leaf.parameters is not None
        asked: Asked = leaf.parameters["asked"]
        model, X = asked.model.get(), self.X.get()
        if asked.columns is not None:
            X = _compat.safe_indexing(X, asked.columns, axis=1)
        elif asked.rows is None:
            X = guard(X) if is_guardable(X) else private_copy(X)
        if asked.rows is not None:
            X = rows_of(X, asked.rows)
        if writable:
            model, X = private_copy(model), private_copy(X)
        with in_stage("predict"):
            return Produced(None, {"value": getattr(model, self.method)(X)})
