"""How an outcome is written down, and read again without running anything.

Scores, times and texts, as JSON: nothing is pickled, and a class is named, never loaded. What is read may
have been written by anybody, so that every piece of it is checked; a row that is not as it should be is
no row.
"""

from __future__ import annotations

import builtins
import importlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from anyfold import errors
from anyfold._data.serialize import dumps, loads
from anyfold._plan.task import Failure, FoldScores, LoggedMessage, Outcome, RelayedWarning, TaskKey

__all__ = ["Terms", "decode", "encode", "row_key"]

Columns = tuple[int, float | None, float, float, str | None, str | None, str, str | None, str | None]

TEMPORARY = (MemoryError, KeyboardInterrupt, SystemExit, OSError, errors.AnyfoldError)
"""Errors that say more about the moment than about the model."""

SCIPY = frozenset(
    ["integrate", "interpolate", "linalg", "optimize", "signal", "sparse", "spatial", "special", "stats"]
)
"""Packages of scipy in which warnings are defined."""

LAST_LINE = 2**31 - 1
"""The largest number of a line that Python can show."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a run asks of the outcomes that it takes, and what it says of those that it records."""

    estimators: bool = False
    """Whether fitted estimators are wanted; they are not kept, so that nothing is taken."""
    predictions: bool = False
    """Whether predictions are wanted; likewise."""
    error_score: float | None = None
    """What stands for a score that failed; None where errors are raised."""
    metrics: tuple[str, ...] | None = None
    """Names of the scores, as far as they are known before."""
    train_scores: bool | None = None
    """Whether there are scores on the training data, likewise."""

    @property
    def takes(self) -> bool:
        """Whether what is kept is enough for such a run."""
        return not (self.estimators or self.predictions)

    def are_met_by(self, value: FoldScores) -> bool:
        """Return whether these are the scores that the run asks for, and no others."""
        if self.train_scores is not None and self.train_scores == (value.train is None):
            return False
        given = [set(scores) for scores in (value.test, value.train) if scores is not None]
        return self.metrics is None or all(names == set(self.metrics) for names in given)


def row_key(digest: str, terms: Terms | None = None) -> bytes:
    """Return the key of a row; with terms, of an outcome that depends on what a failed score is."""
    key = bytes.fromhex(digest)
    if terms is None:
        return key
    policy = "raise" if terms.error_score is None else float(terms.error_score).hex()
    return blake2b(key + policy.encode(), digest_size=len(key)).digest()


def encode(outcome: Outcome, terms: Terms) -> tuple[Columns, bool] | None:
    """Return the columns of an outcome and whether it depends on the terms; None if it cannot be used again.

    Not used again are losses of workers and timeouts, errors of the moment such as a lack of memory, and
    whatever is due to the estimators and predictions that only this run asked for.
    """
    failure, value = outcome.failure, outcome.value
    if failure is not None and not _is_the_models(failure):
        return None
    if terms.predictions and (outcome.warnings or outcome.messages or outcome.output):
        return None  # nobody knows which of them came from predicting
    if value is not None and not isinstance(value, FoldScores):
        return None
    try:
        scores = None if value is None else json.dumps(_scores(value))
    except ValueError:
        return None
    place = outcome.place
    columns = (
        int(failure is not None),
        None if value is None else float(value.fit_time),
        outcome.started,
        outcome.ended,
        scores,
        None if failure is None else json.dumps(_failure(failure)),
        json.dumps([_warning(warning) for warning in outcome.warnings]),
        _said(outcome),
        None if place is None else json.dumps([place.host, place.pid, place.thread]),
    )
    return columns, failure is not None and failure.stage == "score"


def decode(key: TaskKey, columns: Columns, terms: Terms) -> Outcome | None:
    """Return what was written down as an outcome of a task; None if it is not as it should be."""
    _, _, started, ended, scores, failure, warnings, said, _ = columns
    try:
        messages, output = [], []
        if said is not None:
            messages, output = _parsed(said)
        outcome = Outcome(
            key,
            value=None if scores is None else _read_scores(_parsed(scores)),
            failure=None if failure is None else _read_failure(_parsed(failure)),
            warnings=tuple(map(_read_warning, _parsed(warnings))),
            messages=tuple(map(_read_message, messages)),
            output=tuple(map(_read_output, output)),
            started=_typed(started, float),
            ended=_typed(ended, float),
        )
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return None
    if outcome.value is not None and not terms.are_met_by(outcome.value):
        return None
    if outcome.failure is None:
        return None if outcome.value is None else outcome
    # Where errors are raised the task fails again, with the original exception.
    return None if terms.error_score is None else outcome


def _is_the_models(failure: Failure) -> bool:
    if failure.stage not in ("fit", "score"):
        return False
    error = _exception(failure)
    if error is not None:
        return not isinstance(error, TEMPORARY)
    return failure.type_name not in {kind.__name__ for kind in TEMPORARY} | set(errors.__all__)


def _exception(failure: Failure) -> BaseException | None:
    if failure.exception is None:
        return None
    try:
        error = loads(failure.exception)  # a worker of this very run pickled it
    except Exception:
        return None
    return error if isinstance(error, BaseException) else None


# ---- writing ----------------------------------------------------------------------------------


def _scores(value: FoldScores) -> dict[str, Any]:
    return {
        "test": _numbers(value.test),
        "train": None if value.train is None else _numbers(value.train),
        "fit_time": float(value.fit_time).hex(),
        "score_time": float(value.score_time).hex(),
    }


def _numbers(scores: Mapping[str, Any]) -> list[tuple[str, Any]]:
    pairs = []
    for name, score in scores.items():
        if type(name) is not str or type(score) not in (float, int, bool):
            raise ValueError(f"{name!r}: {score!r} cannot be written as text and read again exactly")
        pairs.append((name, score.hex() if type(score) is float else score))
    return pairs


def _failure(failure: Failure) -> dict[str, Any]:
    error = _exception(failure)
    # a class that is called with its message comes out as it was; others may hold more
    plain = error is not None and error.args == (failure.message,) and not getattr(error, "__notes__", None)
    kind = type(error)
    return {
        "stage": failure.stage,
        "type": failure.type_name,
        "message": failure.message,
        "traceback": failure.traceback,
        "class": [kind.__module__, kind.__qualname__] if plain else None,
    }


def _warning(warning: RelayedWarning) -> list[Any]:
    category = warning.category
    return [category.__module__, category.__qualname__, warning.message, warning.filename, warning.lineno]


def _said(outcome: Outcome) -> str | None:
    if not (outcome.messages or outcome.output):
        return None
    messages = [[told.logger, told.level, told.message] for told in outcome.messages]
    return json.dumps([messages, outcome.output])


# ---- reading ----------------------------------------------------------------------------------


def _parsed(text: Any) -> Any:
    return json.loads(_typed(text, str))


T = TypeVar("T")


def _typed(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise ValueError(f"{kind.__name__} expected, not {type(value).__name__}")
    return value


def _read_scores(told: Any) -> FoldScores:
    train = told["train"]
    return FoldScores(
        _read_numbers(told["test"]),
        None if train is None else _read_numbers(train),
        float.fromhex(_typed(told["fit_time"], str)),
        float.fromhex(_typed(told["score_time"], str)),
    )


def _read_numbers(pairs: Any) -> dict[str, float]:
    scores: dict[str, float] = {}
    for name, score in _typed(pairs, list):
        number = float.fromhex(score) if type(score) is str else score
        if type(number) not in (float, int, bool):
            raise ValueError(f"{score!r} is no number")
        float(number)  # raises where it is too large to be computed with
        scores[_typed(name, str)] = number
    return scores


def _read_failure(told: Any) -> Failure:
    stage = _typed(told["stage"], str)
    if stage not in ("fit", "score"):
        raise ValueError(f"{stage!r} is not a stage of a model's work")
    message = _typed(told["message"], str)
    exception = None
    module, name = told["class"] or ("builtins", "")
    if (kind := _known_class(module, name, Exception)) is not None:
        try:
            error = kind(message)
            exception = dumps(error) if error.args == (message,) and str(error) == message else None
        except Exception:
            exception = None
    texts = _typed(told["type"], str), message, _typed(told["traceback"], str)
    return Failure(stage, *texts, exception)  # type: ignore[arg-type]


def _read_warning(told: Any) -> RelayedWarning:
    module, name, message, filename, line = told
    category = _known_class(module, name, Warning)
    message = _typed(message, str)
    if category is None:
        category, message = UserWarning, f"{_typed(name, str)}: {message}"
    if (source := Path(_typed(filename, str))).exists() and not source.is_file():
        raise ValueError(f"{filename!r} is no source file")  # showing a line of a device may take for ever
    if not 0 <= _typed(line, int) <= LAST_LINE:
        raise ValueError(f"{line} is no line")
    return RelayedWarning(category, message, filename, line)


def _read_message(told: Any) -> LoggedMessage:
    logger, level, message = told
    return LoggedMessage(_typed(logger, str), _typed(level, int), _typed(message, str))


def _read_output(told: Any) -> tuple[str, str]:
    stream, text = told
    if stream not in ("stdout", "stderr"):
        raise ValueError(f"{stream!r} is no stream")
    return stream, _typed(text, str)


def _known_class(module: Any, name: Any, base: type[T]) -> type[T] | None:
    """Return a class by its name, from packages that anyfold itself needs; nothing else is looked at."""
    package, _, rest = _typed(module, str).partition(".")
    if module == "builtins":
        found: Any = builtins
    elif module == "anyfold.errors":
        found = errors
    elif package in ("numpy", "scipy", "sklearn"):
        if package == "scipy" and (part := rest.partition(".")[0]) in SCIPY:
            importlib.import_module(f"scipy.{part}")
        elif module == "sklearn.exceptions":
            importlib.import_module(module)
        found = sys.modules.get(module)
    else:
        return None
    kind = getattr(found, "__dict__", {}).get(_typed(name, str))
    return kind if isinstance(kind, type) and issubclass(kind, base) else None
