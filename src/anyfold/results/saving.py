"""A result as a file without pickle: a zip archive of numpy arrays and one JSON text."""

from __future__ import annotations

import builtins
import json
import os
import secrets
import shutil
import sys
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anyfold._plan.task import Failure, FoldScores, LoggedMessage, Outcome, Place, RelayedWarning, TaskKey
from anyfold._version import __version__
from anyfold.errors import AnyfoldWarning, InvalidInputError

if TYPE_CHECKING:
    from anyfold._plan.content import JournalUse
    from anyfold.results.grid import OutcomeGrid

__all__ = ["load_result", "save_result"]

FORMAT = 1
PLAIN = (
    *("n_folds", "n_samples", "random_state", "backend", "n_jobs", "choice"),
    *("return_train_score", "interrupted"),
)


def save_result(result: Any, grid: OutcomeGrid, path: str | os.PathLike[str]) -> None:
    """Write a result; a file that is there is replaced when the new one is complete."""
    left_out = ["predictions"] * bool(result.response_methods)
    left_out += ["estimators"] * any(map(grid.has_estimators, result.models))
    if left_out:
        warnings.warn(
            f"{' and '.join(left_out)} are not saved: they are pickles; everything else is",
            AnyfoldWarning,
            stacklevel=3,
        )
    content = {
        "format": FORMAT,
        "anyfold": __version__,
        **{name: getattr(result, name) for name in PLAIN},
        "models": list(result.models),
        "metrics": list(result.metrics),
        "error_score": _number(result.error_score),
        "wall_time": _number(result.wall_time),
        "parameters": {
            model: {name: _plain(value) for name, value in given.items()}
            for model, given in result.parameters.items()
        },
        "journal": _journal_told(result.journal),
        "outcomes": [_told(outcome) for outcome in grid],
    }
    arrays: dict[str, Any] = {
        "result": np.frombuffer(json.dumps(content, allow_nan=False).encode(), dtype=np.uint8)
    }
    for fold, (train, test) in enumerate(result.splits):
        # Numbers, whatever they were given as: nothing else is written without a pickle.
        arrays |= {f"train_{fold}": np.asarray(train, np.intp), f"test_{fold}": np.asarray(test, np.intp)}
    target = Path(path)
    new = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with new.open("xb") as file:  # with the mode that any new file of the user's has
            np.savez_compressed(file, **arrays)
        with suppress(FileNotFoundError):
            shutil.copymode(target, new)
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def load_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a result, as the arguments of `CVResult`.

    Raises
    ------
    InvalidInputError
        If the file holds no result.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            content = json.loads(arrays["result"].tobytes())
            if content["format"] != FORMAT:
                made_by = content.get("anyfold", "another anyfold")
                raise InvalidInputError(
                    f"{os.fspath(path)!r} was saved by anyfold {made_by} in format {content['format']}; "
                    f"this one reads format {FORMAT}"
                )
            splits = [(arrays[f"train_{i}"], arrays[f"test_{i}"]) for i in range(content["n_folds"])]
        return {
            **{name: content[name] for name in PLAIN},
            "models": content["models"],
            "metrics": content["metrics"],
            "error_score": float(content["error_score"]),
            "wall_time": float(content["wall_time"]),
            "parameters": content["parameters"],
            "journal": _journal(content["journal"]),
            "outcomes": [_outcome(told) for told in content["outcomes"]],
            "splits": splits,
            "response_methods": (),
        }
    except InvalidInputError:
        raise
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, EOFError, AttributeError) as error:
        raise InvalidInputError(f"{os.fspath(path)!r} holds no saved result: {error}") from error


def _told(outcome: Outcome) -> dict[str, Any]:
    value, failure, place = outcome.value, outcome.failure, outcome.place
    return {
        "key": [outcome.key.model, outcome.key.candidate, outcome.key.fold],
        "value": None
        if value is None
        else {
            "test": _numbers(value.test),
            "train": None if value.train is None else _numbers(value.train),
            "fit_time": value.fit_time,
            "score_time": value.score_time,
            "n_shared": value.n_shared,
            "saved_time": value.saved_time,
        },
        "failure": None
        if failure is None
        else [failure.stage, failure.type_name, failure.message, failure.traceback],
        "warnings": [
            [_name(warned.category), warned.message, warned.filename, warned.lineno]
            for warned in outcome.warnings
        ],
        "messages": [[told.logger, told.level, told.message] for told in outcome.messages],
        "output": outcome.output,
        "place": None if place is None else [place.host, place.pid, place.thread],
        "started": outcome.started,
        "ended": outcome.ended,
        "attempts": outcome.attempts,
    }


def _outcome(told: Mapping[str, Any]) -> Outcome:
    value, failure, place = told["value"], told["failure"], told["place"]
    if value is not None:
        train = value["train"]
        value = FoldScores(
            **value | {"test": _floats(value["test"]), "train": None if train is None else _floats(train)}
        )
    return Outcome(
        TaskKey(*told["key"]),
        value=value,
        failure=None if failure is None else Failure(*failure),
        warnings=tuple(RelayedWarning(_category(name), *rest) for name, *rest in told["warnings"]),
        messages=tuple(LoggedMessage(*message) for message in told["messages"]),
        output=tuple((stream, text) for stream, text in told["output"]),
        place=None if place is None else Place(*place),
        started=told["started"],
        ended=told["ended"],
        attempts=told["attempts"],
    )


def _name(category: type[Warning]) -> str:
    return f"{category.__module__}.{category.__qualname__}"


def _category(name: str) -> type[Warning]:
    """Return a class of warnings that is loaded; reading a file imports nothing."""
    module, _, qualname = name.rpartition(".")
    found = getattr(sys.modules.get(module, builtins), qualname, None)
    return found if isinstance(found, type) and issubclass(found, Warning) else UserWarning


def _journal_told(use: JournalUse | None) -> dict[str, Any] | None:
    if use is None:
        return None
    taken = [[key.model, key.candidate, key.fold] for key in sorted(use.taken)]
    return asdict(use) | {"taken": taken, "untrusted": dict(use.untrusted)}


def _journal(told: Mapping[str, Any] | None) -> JournalUse | None:
    if told is None:
        return None
    from anyfold._plan.content import JournalUse

    return JournalUse(**{**told, "taken": frozenset(TaskKey(*key) for key in told["taken"])})


def _number(value: float) -> float | str:
    """Return a number that JSON can hold, exactly; others by name."""
    number = float(value)
    return number if isfinite(number) else str(number)


def _numbers(values: Mapping[str, float]) -> dict[str, float | str]:
    return {name: _number(value) for name, value in values.items()}


def _floats(values: Mapping[str, float | str]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if value is None or type(value) in (bool, int, str) or (type(value) is float and isfinite(value)):
        return value
    return repr(value)
