"""Which rows train and which test: from whatever scikit-learn's ``cv`` takes, to checked indices."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

from anyfold.errors import AnyfoldWarning, InvalidInputError

__all__ = ["Split", "make_splits", "make_splitter"]

Split = tuple[np.ndarray, np.ndarray]


def make_splitter(cv: Any, y: Any, groups: Any, stratify: bool | None) -> tuple[Any, str]:
    """Return what will split, and in words why.

    For an int, `stratify` None stratifies when `y` is boolean, text, categorical or of integer type
    with repeated values, never when it is floating.
    """
    if stratify is not None and not isinstance(stratify, (bool, np.bool_)):
        raise InvalidInputError(
            f"stratify={stratify!r:.60}: True, False or None is needed (the labels are those of y)"
        )
    if cv is None:
        cv = 5  # as in scikit-learn
    if isinstance(cv, numbers.Integral) and not isinstance(cv, (bool, np.bool_)):
        return _splitter_for_int(int(cv), y, groups, stratify)
    if stratify is not None:
        raise InvalidInputError(
            f"stratify={stratify!r} goes with an int cv; cv={cv!r} decides by itself. "
            "Leave stratify out, or write cv=5"
        )
    if hasattr(cv, "split") and not isinstance(cv, str):
        return cv, "as given"
    if isinstance(cv, Iterable) and not isinstance(cv, (str, bytes)):
        return list(cv), "as given"
    raise InvalidInputError(
        f"cv={cv!r} cannot split: pass an int (number of folds), a splitter such as "
        "StratifiedKFold(5), or an iterable of (train indices, test indices)"
    )


def _splitter_for_int(n_splits: int, y: Any, groups: Any, stratify: bool | None) -> tuple[Any, str]:
    if n_splits < 2:
        raise InvalidInputError(f"cv={n_splits} makes no folds: at least 2 are needed")
    if groups is not None:
        raise InvalidInputError(
            f"groups would be ignored by cv={n_splits}: pass a splitter that uses them, "
            f"such as cv=GroupKFold({n_splits})"
        )
    labels, reason = _as_labels(y)
    if stratify is None:
        stratify = labels is not None
    else:
        reason = f"stratify={stratify}"
        labels = np.asarray(y) if y is not None else None
    if not stratify:
        return KFold(n_splits), f"not stratified: {reason}"
    if labels is None:
        raise InvalidInputError("stratify=True needs y")
    _check_labels(labels, n_splits)
    return StratifiedKFold(n_splits), f"stratified: {reason}"


def _as_labels(y: Any) -> tuple[np.ndarray | None, str]:
    """Return y as class labels, or None where it is none, and why."""
    if y is None:
        return None, "there is no y"
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        return None, "y has several outputs"
    if _is_categorical(y):
        return values, "y is categorical"
    kind: str = values.dtype.kind
    if kind == "O":
        kind = _kind_of_objects(values)
    match kind:
        case "b":
            return values, "y is boolean"
        case "U" | "S" | "T":
            return values, "y is text"
        case "i" | "u":
            if len(np.unique(values)) < len(values):
                return values, "y is of integer type with repeated values"
            return None, "no value of y is repeated"
        case "f":
            return None, "y is floating"
    return None, f"y is of type {values.dtype}"


def _is_categorical(y: Any) -> bool:
    # pandas says "category", polars "Categorical" or "Enum(...)"
    name = str(getattr(y, "dtype", ""))
    return name.startswith(("category", "Categorical", "Enum"))


def _kind_of_objects(values: np.ndarray) -> str:
    kinds = {np.asarray(value).dtype.kind for value in values.tolist() if not _is_missing(value)}
    if kinds & {"U", "S"}:
        return "U"
    return kinds.pop() if len(kinds) == 1 else "O"


def _is_missing(value: Any) -> bool:
    if value is None or str(value) == "<NA>":
        return True
    return isinstance(value, numbers.Real) and value != value


def _check_labels(labels: np.ndarray, n_splits: int) -> None:
    if labels.ndim != 1:
        return  # several outputs: the splitter says what it makes of them
    if labels.dtype.kind in "fO" and any(_is_missing(value) for value in labels.tolist()):
        n_missing = sum(_is_missing(value) for value in labels.tolist())
        raise InvalidInputError(
            f"y has {n_missing} missing labels, which cannot be stratified: drop those rows, "
            "or pass stratify=False"
        )
    classes, sizes = np.unique(labels, return_counts=True)
    if len(classes) and sizes.min() < n_splits:
        smallest = classes[sizes.argmin()]
        raise InvalidInputError(
            f"class {smallest.item()!r} of y has {sizes.min()} members, fewer than the {n_splits} folds of "
            f"cv={n_splits}: use at most cv={max(2, sizes.min())}, merge the class, pass "
            f"cv=StratifiedKFold({n_splits}) to go on with a warning, or stratify=False "
            "if y is no class label"
        )


def make_splits(splitter: Any, X: Any, y: Any, groups: Any, n_samples: int) -> tuple[Split, ...]:
    """Split once and check every fold; indices are int arrays, read-only."""
    if isinstance(splitter, list):
        pairs = splitter
    else:
        try:
            pairs = list(splitter.split(X, y, groups))
        except (ValueError, TypeError) as error:
            raise InvalidInputError(f"{splitter!r} cannot split this data: {error}") from error
    if not pairs:
        raise InvalidInputError("cv yields no folds: at least one (train, test) pair is needed")
    splits = tuple(_check_pair(number, pair, n_samples) for number, pair in enumerate(pairs))
    _warn_of_overlap(splits)
    return splits


def _check_pair(number: int, pair: Any, n_samples: int) -> Split:
    try:
        train, test = pair
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"fold {number} of cv is {type(pair).__name__} {pair!r:.80}: "
            "a pair (train indices, test indices) is needed"
        ) from None
    return _check_indices(number, "train", train, n_samples), _check_indices(number, "test", test, n_samples)


def _check_indices(number: int, part: str, indices: Any, n_samples: int) -> np.ndarray:
    where = f"the {part} set of fold {number}"
    array = np.asarray(indices)
    if array.dtype == bool and array.shape == (n_samples,):
        array = np.flatnonzero(array)
    if array.size == 0:
        raise InvalidInputError(f"{where} is empty: each fold needs rows to train and rows to test")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidInputError(
            f"{where} has shape {array.shape} and dtype {array.dtype}: one-dimensional integer indices are "
            f"needed, or a boolean mask of length {n_samples}"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= n_samples:
        worst = low if low < 0 else high
        raise InvalidInputError(f"{where} has index {worst}, out of range for {n_samples} samples")
    array = array.astype(np.intp, copy=True)
    array.flags.writeable = False
    return array


def _warn_of_overlap(splits: tuple[Split, ...]) -> None:
    overlaps = {
        number: len(shared)
        for number, (train, test) in enumerate(splits)
        if len(shared := np.intersect1d(train, test))
    }
    if overlaps:
        worst = max(overlaps, key=lambda number: overlaps[number])
        folds = "fold" if len(overlaps) == 1 else "folds"
        warnings.warn(
            f"train and test overlap in {folds} {', '.join(map(str, overlaps))} "
            f"(fold {worst}: {overlaps[worst]} rows in both): scores will be too good",
            AnyfoldWarning,
            stacklevel=4,
        )
