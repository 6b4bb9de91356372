"""Issues again, for the caller, the warnings that tasks issued on workers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

from anyfold._plan.task import REFIT, Outcome, TaskKey

__all__ = ["issue_warnings"]


def issue_warnings(outcomes: Iterable[Outcome]) -> None:
    """Issue each distinct warning once, in the order of the outcomes, with the names of its tasks.

    The file and line are those where the worker's code issued it, so that the caller's filters apply
    as they would have there.
    """
    tasks: dict[tuple[type[Warning], str, str, int], dict[TaskKey, None]] = {}
    for outcome in outcomes:
        for told in outcome.warnings:
            key = (told.category, told.message, told.filename, told.lineno)
            tasks.setdefault(key, {})[outcome.key] = None
    for (category, message, filename, lineno), keys in tasks.items():
        text = f"{message}\n[{_names(keys)}]"
        try:
            warnings.warn_explicit(text, category, filename, lineno)
        except TypeError:
            # The class cannot be made of a text alone.
            warnings.warn_explicit(f"{category.__name__}: {text}", UserWarning, filename, lineno)


def _names(keys: Mapping[TaskKey, None]) -> str:
    folds: dict[str, list[int]] = {}
    for key in keys:
        folds.setdefault(key.model, []).append(key.fold)
    return "; ".join(f"model {model!r}, {_fold_names(numbers)}" for model, numbers in folds.items())


def _fold_names(numbers: list[int]) -> str:
    if numbers == [REFIT]:
        return "refit"
    noun = "fold" if len(numbers) == 1 else "folds"
    return f"{noun} {', '.join(str(number) for number in sorted(numbers))}"
