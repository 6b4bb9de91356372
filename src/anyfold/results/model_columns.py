"""One table of what several models answered for the same rows."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from anyfold.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame_of_models"]


def frame_of_models(
    answers: Mapping[str, Any], models: Mapping[str, Any], n_rows: int, index: Any = None
) -> pd.DataFrame:
    """Put the answers of models side by side.

    Parameters
    ----------
    answers : mapping of str to array-like of shape (n_rows,) or (n_rows, n_columns), or a list of these
        By the name of the model.
    models : mapping of str to object
        Whose classes name columns.
    n_rows : int
        How many rows each answer must have.
    index : Index, optional
        Of the rows, where it is one of pandas.

    Examples
    --------
    >>> frame_of_models({"a": [1, 2], "b": [0.5, 0.25]}, {}, 2)
       a     b
    0  1  0.50
    1  2  0.25
    """
    import pandas as pd

    columns = [
        (name, output, label, column)
        for name, answer in answers.items()
        for output, label, column in _columns(
            name, answer, getattr(models.get(name), "classes_", None), n_rows
        )
    ]
    rows = index if isinstance(index, pd.Index) else pd.RangeIndex(n_rows)
    frame = pd.DataFrame({number: column for number, (*_, column) in enumerate(columns)})
    if not columns:
        return pd.DataFrame(index=rows)
    frame.index = rows
    levels = zip(*[label for *label, _ in columns], strict=True)
    used = [
        (level, ["" if label is None else label for label in labels])
        for level, labels in zip(("model", "output", "column"), levels, strict=True)
        if any(label is not None for label in labels)
    ]
    if len(used) == 1:
        frame.columns = pd.Index(used[0][1])
    else:
        names, arrays = zip(*used, strict=True)
        frame.columns = pd.MultiIndex.from_tuples(zip(*arrays, strict=True), names=names)
    return frame


def _columns(
    name: str, answer: Any, classes: Any, n_rows: int
) -> Iterator[tuple[Hashable | None, Hashable | None, Any]]:
    """Give out the columns of one answer, each with its output and its label where it has any."""
    import numpy as np

    if isinstance(answer, list | tuple) and answer and all(getattr(each, "shape", ()) for each in answer):
        for output, each in enumerate(answer):
            own = classes[output] if isinstance(classes, list) else None
            for _, label, column in _columns(name, each, own, n_rows):
                yield output, label, column
        return
    labels: Any = list(answer.columns) if hasattr(answer, "columns") else None
    if hasattr(answer, "toarray"):
        answer = answer.toarray()
    is_series = hasattr(answer, "array")
    values = answer.array if is_series else answer if labels is not None else np.asarray(answer)
    shape = answer.shape if is_series or labels is not None else values.shape
    if not shape or shape[0] != n_rows or len(shape) > 2:
        raise InvalidInputError(
            f"model {name!r} answered with {type(answer).__name__} of shape {tuple(shape)} for {n_rows} "
            "rows: a table needs one row, or number, for each"
        )
    if len(shape) == 1:
        yield None, None, values
        return
    if labels is None:
        fits = classes is not None and not isinstance(classes, list) and len(classes) == shape[1]
        labels = list(classes) if fits else list(range(shape[1]))
    for position, label in enumerate(labels):
        if hasattr(values, "iloc"):
            yield None, label, values.iloc[:, position].array
        elif hasattr(values, "columns"):
            yield None, label, values[label].to_numpy()
        else:
            yield None, label, values[:, position]
