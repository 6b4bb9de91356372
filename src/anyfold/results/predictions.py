"""How predictions of folds become predictions of samples, as in scikit-learn's `cross_val_predict`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from anyfold._plan.task import TaskKey
from anyfold.errors import InvalidInputError

__all__ = ["Classes", "align_to_classes", "aligned_folds", "in_sample_order", "is_partition"]

Classes = NDArray[Any] | Sequence[NDArray[Any]] | None
"""Classes in the order of the columns, one array per output where there are several, None without classes."""

METHODS_WITH_CLASSES = ("decision_function", "predict_proba", "predict_log_proba")


def is_partition(test_sets: Sequence[NDArray[Any]], n_samples: int) -> bool:
    """Whether every sample stands in exactly one test set.

    Examples
    --------
    >>> is_partition([np.array([0, 2]), np.array([1])], n_samples=3)
    True
    >>> is_partition([np.array([0, 2]), np.array([2])], n_samples=3)
    False
    """
    if sum(map(len, test_sets)) != n_samples:
        return False
    hit = np.zeros(n_samples, dtype=bool)
    for test in test_sets:
        hit[test] = True
    return bool(hit.all())


def aligned_folds(
    made: Mapping[TaskKey, tuple[Any, Classes] | None],
    test_sets: Sequence[NDArray[Any]],
    classes: Classes,
    method: str,
) -> list[tuple[NDArray[Any], Any]]:
    """Pair the test indices of each fold with predictions that have the same columns on all folds.

    Parameters
    ----------
    made : mapping of length n_folds
        Predictions with the classes of the estimator that made them, None where there are none.
    test_sets : sequence of length n_folds
        Indices of the test samples of each fold.
    classes : ndarray, list of ndarray or None
        Classes of all data.
    method : str
        What made the predictions.

    Returns
    -------
    list of (test, values)
        See `align_to_classes`; the values are None where there are none.
    """
    folds: list[tuple[NDArray[Any], Any]] = []
    for (key, one), test in zip(made.items(), test_sets, strict=True):
        values = None if one is None else align_to_classes(*one, classes, method, key)
        for output in values if isinstance(values, list) else [values]:
            if output is not None and output.shape[:1] != test.shape:
                raise InvalidInputError(
                    f"{method} of {key} has shape {output.shape} for {len(test)} test samples"
                )
        folds.append((test, values))
    return folds


def in_sample_order(folds: Sequence[tuple[NDArray[Any], Any]], what: str) -> Any:
    """Join the predictions of all folds and put them in the order of the samples.

    Parameters
    ----------
    folds : sequence of (test, values)
        Indices of the test samples, together each sample once, and what was predicted for them: an
        array, a sparse matrix, or for several outputs a list of arrays.
    what : str
        What the predictions are, for messages.

    Returns
    -------
    ndarray, sparse matrix, or list of ndarray
        With one row per sample; a list has one array per output.

    Raises
    ------
    InvalidInputError
        If a fold has no predictions.

    Examples
    --------
    >>> folds = [(np.array([0, 2]), np.array(["a", "c"])), (np.array([1]), np.array(["b"]))]
    >>> in_sample_order(folds, "predict of model 'rf'").tolist()
    ['a', 'b', 'c']
    """
    lacking = [str(fold) for fold, (_, values) in enumerate(folds) if values is None]
    if lacking:
        raise InvalidInputError(
            f"there is no {what} on fold {', '.join(lacking)}, which failed or did not run; "
            "by_fold=True returns the folds that there are"
        )
    test = np.concatenate([test for test, _ in folds])
    values = [values for _, values in folds]
    rows = np.empty(len(test), dtype=np.intp)
    rows[test] = np.arange(len(test))
    if _is_sparse(values[0]):
        from scipy import sparse

        return sparse.vstack(values, format="csr")[rows].asformat(values[0].format)
    if _has_outputs(values[0]):
        return [np.concatenate(output)[rows] for output in zip(*values, strict=True)]
    return np.concatenate(values)[rows]


def align_to_classes(values: Any, fold_classes: Classes, classes: Classes, method: str, where: object) -> Any:
    """Give the predictions of one fold one column per class of all data.

    Classes that the fold's training data lack get probability 0, and the lowest finite number as
    log-probability or decision, as in scikit-learn's `cross_val_predict`.

    Parameters
    ----------
    values : array-like, sparse matrix or list of array-like
        What ``method`` returned on the test samples of the fold.
    fold_classes : ndarray, list of ndarray or None
        ``classes_`` of the estimator that was fitted on the fold.
    classes : ndarray, list of ndarray or None
        Classes of all data.
    method : str
        Only ``"predict_proba"``, ``"predict_log_proba"`` and ``"decision_function"`` have columns by class.
    where : object
        Names model and fold in messages.

    Returns
    -------
    ndarray, sparse matrix or list of ndarray
        Whatever the estimator returned, frames as plain arrays.

    Raises
    ------
    InvalidInputError
        If classes are missing and the columns cannot be told apart.

    Warns
    -----
    RuntimeWarning
        If the training data of the fold lack classes.

    Examples
    --------
    >>> values, labels = np.array([[0.25, 0.75]]), np.array(["b", "c"])
    >>> align_to_classes(values, labels, labels, "predict_proba", "model 'rf', fold 0").tolist()
    [[0.25, 0.75]]
    """
    if _is_sparse(values):
        return values
    if method not in METHODS_WITH_CLASSES:
        return np.asarray(values)
    if _has_outputs(values):
        if not _is_per_output(fold_classes) or not _is_per_output(classes):
            return [np.asarray(output) for output in values]
        return [
            _align(np.asarray(output), np.asarray(some), np.asarray(all_), method, f"{where}, output {i}")
            for i, (output, some, all_) in enumerate(zip(values, fold_classes, classes, strict=True))
        ]
    if _is_per_output(classes) and len(classes) == 1:
        classes = classes[0]
    if fold_classes is None or classes is None or _is_per_output(fold_classes) or _is_per_output(classes):
        return np.asarray(values)  # without classes, or a column per output and not per class
    return _align(np.asarray(values), np.asarray(fold_classes), np.asarray(classes), method, where)


def _align(
    values: NDArray[Any], fold_classes: NDArray[Any], classes: NDArray[Any], method: str, where: object
) -> NDArray[Any]:
    if len(fold_classes) == len(classes):
        return values
    position = {label: column for column, label in enumerate(classes.tolist())}
    columns = [position[label] for label in fold_classes.tolist() if label in position]
    if len(columns) < len(fold_classes):
        raise InvalidInputError(
            f"the estimator of {where} has classes {fold_classes.tolist()}, the data have "
            f"{classes.tolist()}; its {method} cannot be matched to them"
        )
    advice = "use stratified folds, so that each training set has every class"
    if values.ndim != 2 or values.shape[1] != len(fold_classes):
        raise InvalidInputError(
            f"{method} of {where} has shape {values.shape}, the training data have {len(fold_classes)} of "
            f"{len(classes)} classes: the missing columns cannot be placed; {advice}"
        )
    warnings.warn(
        f"the training data of {where} have {len(fold_classes)} of {len(classes)} classes; {method} is "
        f"filled in for the others; {advice}",
        RuntimeWarning,
        stacklevel=2,
    )
    missing = 0 if method == "predict_proba" else np.finfo(values.dtype).min
    filled = np.full((len(values), len(classes)), missing, dtype=values.dtype)
    filled[:, columns] = values
    return filled


def _is_sparse(values: Any) -> bool:
    from scipy.sparse import issparse

    return bool(issparse(values))


def _has_outputs(values: Any) -> bool:
    """Whether predictions are a list with one table per output, and not a list of labels."""
    return isinstance(values, (list, tuple)) and len(values) > 0 and np.ndim(values[0]) > 0


def _is_per_output(classes: Classes) -> TypeGuard[Sequence[NDArray[Any]]]:
    return isinstance(classes, (list, tuple))
