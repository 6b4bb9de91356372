"""Says again, for the caller, what tasks said on workers: in task order, with the task's name."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from anyfold._plan.task import Outcome, Place, TaskKey
from anyfold._worker.capture import undisturbed

__all__ = ["Relay", "Told", "issue_warnings"]


class Relay:
    """Passes on logging and output as soon as all earlier tasks have had their say.

    Parameters
    ----------
    prints : bool
        Whether nobody has seen what was printed yet.

    Attributes
    ----------
    is_held : bool
        Whether it only collects, since another thread than the caller's brings what tasks have said.
    """

    def __init__(self, *, prints: bool) -> None:
        self._prints = prints
        self.is_held = False
        self._next = 0
        self._waiting: dict[int, Outcome] = {}

    def take(self, position: int, outcome: Outcome) -> None:
        """Take what a task has said and pass on what is due."""
        if position < self._next:
            return  # it has been said: Ctrl-C had come in between
        self._waiting[position] = outcome
        while not self.is_held and (due := self._waiting.get(self._next)) is not None:
            self._say(due)
            del self._waiting[self._next]
            self._next += due.n_items

    def finish(self) -> None:
        """Pass on what is left when the run ends before some tasks have had their say."""
        for position in sorted(self._waiting):
            self._say(self._waiting.pop(position))

    def _say(self, outcome: Outcome, place: Place | None = None) -> None:
        place = outcome.place or place
        for part in outcome.parts:
            self._say(part, place)
        for record in outcome.logs:
            # What a handler or filter of the caller's makes of it must not cost the run.
            try:
                self._log(record, outcome.key, is_filtered=place is not None and place.pid == os.getpid())
            except Exception:
                logging.getLogger(record.name).debug("cannot pass on a record", exc_info=True)
        if not self._prints:
            return
        texts: dict[str, list[str]] = {}
        for name, text in outcome.output:
            texts.setdefault(name, []).append(text)
        for name, parts in texts.items():
            _print(name, "".join(f"[{outcome.key}] {line}\n" for line in "".join(parts).splitlines()))

    def _log(self, record: logging.LogRecord, key: TaskKey, *, is_filtered: bool) -> None:
        logger = logging.getLogger(record.name)
        if not is_filtered:  # the caller's filters have not seen what a worker process said
            kept: Any = not logger.disabled and logger.filter(record)
            if not kept:
                return
            record = kept if isinstance(kept, logging.LogRecord) else record
        record.msg = f"[{key}] {record.msg}"
        logger.callHandlers(record)


def _print(name: str, text: str) -> None:
    stream = getattr(sys, name)
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


def issue_warnings(outcomes: Iterable[Outcome]) -> None:
    """Issue each distinct warning once, in the order of the outcomes, with the names of its tasks.

    The file and line are those where the worker's code issued it. The caller's filters have let it pass
    there, where the module was known by its name; here they only say how often it is shown.
    """
    tasks: dict[tuple[type[Warning], str, str, int], dict[TaskKey, None]] = {}
    for outcome in outcomes:
        for part in outcome.parts or (outcome,):
            for told in part.warnings:
                key = (told.category, told.message, told.filename, told.lineno)
                tasks.setdefault(key, {})[part.key] = None
    if not tasks:
        return
    with undisturbed(), warnings.catch_warnings():
        shown = [entry for entry in warnings.filters if entry[0] not in ("ignore", "error")]
        warnings.filters[:] = shown  # type: ignore[index]
        warnings.simplefilter("default", append=True)  # makes the change known, and changes nothing
        _issue(tasks)


class Told:
    """Warnings of what was given out: each distinct one is issued again once in a run."""

    def __init__(self) -> None:
        self._known: set[Any] = set()
        self._outcomes: list[Outcome] = []

    def take(self, outcome: Outcome) -> None:
        """Take what items have warned of."""
        if outcome.warnings or outcome.parts:
            self._outcomes.append(outcome)

    def issue(self) -> None:
        """Issue what is new."""
        parts = [part for outcome in self._outcomes for part in outcome.parts or (outcome,)]
        self._outcomes.clear()
        new = [
            replace(part, warnings=tuple(told for told in part.warnings if told not in self._known))
            for part in parts
        ]
        self._known.update(told for part in new for told in part.warnings)
        issue_warnings(new)


def _issue(tasks: Mapping[tuple[type[Warning], str, str, int], Mapping[TaskKey, None]]) -> None:
    for (category, message, filename, lineno), keys in tasks.items():
        text = f"{message}\n[{_names(keys)}]"
        try:
            warnings.warn_explicit(text, category, filename, lineno)
        except TypeError:
            # The class cannot be made of a text alone.
            warnings.warn_explicit(f"{category.__name__}: {text}", UserWarning, filename, lineno)


def _names(keys: Mapping[TaskKey, None]) -> str:
    folds: dict[tuple[type[TaskKey], str], list[int]] = {}
    for key in keys:
        folds.setdefault((type(key), key.model), []).append(key.fold)
    return "; ".join(kind.names(model, numbers) for (kind, model), numbers in folds.items())
