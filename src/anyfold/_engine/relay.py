"""Says again, for the caller, what tasks said on workers: in task order, with the task's name."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace

from anyfold._plan.task import REFIT, Outcome, TaskKey

__all__ = ["Relay", "issue_warnings"]


class Relay:
    """Passes on logging and output as soon as all earlier tasks have had their say."""

    def __init__(self) -> None:
        self._next = 0
        self._waiting: dict[int, Outcome] = {}

    def take(self, position: int, outcome: Outcome) -> Outcome:
        """Take what a task has said out of its outcome and pass on what is due."""
        self._waiting[position] = outcome
        while (due := self._waiting.pop(self._next, None)) is not None:
            self._next += 1
            _say(due)
        if outcome.logs or outcome.output:
            return replace(outcome, logs=(), output=())
        return outcome

    def finish(self) -> None:
        """Pass on what is left when the run ends before some tasks have had their say."""
        for position in sorted(self._waiting):
            _say(self._waiting.pop(position))


def _say(outcome: Outcome) -> None:
    for record in outcome.logs:
        record.msg = f"[{outcome.key}] {record.msg}"
        logging.getLogger(record.name).callHandlers(record)
    texts: dict[str, list[str]] = {}
    for name, text in outcome.output:
        texts.setdefault(name, []).append(text)
    for name, parts in texts.items():
        stream = getattr(sys, name)
        if stream is not None:
            lines = "".join(parts).splitlines()
            stream.write("".join(f"[{outcome.key}] {line}\n" for line in lines))


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
