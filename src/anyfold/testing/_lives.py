"""An executor that is made, used and closed, once for each contract class, and what it leaves to look at."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import sklearn

from anyfold.testing._base import hold_all
from anyfold.testing._limits import PATIENCE, wait_until_gone
from anyfold.testing._processes import ProcessInfo, children_left, descendants, descriptors
from anyfold.testing.probes import Fails, Warns, add, probe_data

__all__ = ["Life", "life_of"]


@dataclass(frozen=True, slots=True)
class Life:
    """What there was before and after an executor, in the process of its caller and below it."""

    before: dict[str, Any]
    after: dict[str, Any]
    processes: tuple[ProcessInfo, ...]
    """Those that it has left."""
    descriptors: tuple[list[str], list[str]]
    """Before and after."""


_lives: WeakKeyDictionary[type, Life] = WeakKeyDictionary()


def life_of(subject: Any) -> Life:
    """Return what an executor of a contract class has left."""
    cls = type(subject)
    if cls not in _lives:
        _lives[cls] = _live(subject)
    return _lives[cls]


def _live(subject: Any) -> Life:
    with subject.executor() as first:  # opens what stays open for those that follow, to all workers
        folder = subject.new_folder("life")
        held = hold_all(first, folder) if subject.isolation != "none" else [first.submit(add, 1)]
        (folder / "go").touch()
        assert all(future.result(PATIENCE) for future in held)
        _use(subject, first)
    processes = {process.pid for process in descendants()}
    opened, before = descriptors(), _state()
    _use_another(subject)
    after = _state()
    with contextlib.suppress(AssertionError):
        wait_until_gone(lambda: children_left(processes), "an executor")
        wait_until_gone(lambda: descriptors()[len(opened) :], "an executor")
    return Life(before, after, tuple(children_left(processes)), (opened, descriptors()))


def _use_another(subject: Any) -> None:
    with subject.fresh() as executor:
        _use(subject, executor)


def _use(subject: Any, executor: Any) -> None:
    from anyfold import Folds

    assert [executor.submit(add, i).result(PATIENCE) for i in range(6)] == list(range(6))
    subject.run_cv({"warns": Warns(), "fails": Fails(on=(0,))}, Folds(*probe_data(), cv=3), executor)


def _state() -> dict[str, Any]:
    return {
        "environment": {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "working directory": Path.cwd(),
        "import path": list(sys.path),
        "warning filters": list(warnings.filters),
        "scikit-learn's configuration": sklearn.get_config(),
    }
