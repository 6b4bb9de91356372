"""Wherever the engine is when Ctrl-C comes: what a worker had sent is in the result and in the journal."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import BaseEstimator

import anyfold as af
from anyfold import _engine
from anyfold._engine.inbox import Inbox
from anyfold._mail.messages import Done

ENGINE = str(Path(_engine.__file__).parent)
FOLDS = af.Folds(np.zeros((20, 2)), np.zeros(20), cv=2)
STEP = 31
"""Every which line: all of them take minutes."""


class Quick(BaseEstimator):
    def __init__(self, number=0):
        self.number = number

    def fit(self, X, y):
        return self

    def score(self, X, y):
        return 0.5


MODELS = {f"m{number}": Quick(number) for number in range(4)}


class CtrlC:
    """Comes before the caller runs a certain line of the engine, counted from the start of a run."""

    def __init__(self, at, delivered):
        self.at = at
        self.delivered = delivered
        self.n_lines = 0
        self.place = None

    def __call__(self, frame, kind, argument):
        if not frame.f_code.co_filename.startswith(ENGINE):
            return None
        if kind == "line":
            self.n_lines += 1
            if self.n_lines == self.at:
                sys.settrace(None)
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                self.delivered = set(self.delivered)
                raise KeyboardInterrupt
        return self


@pytest.fixture
def delivered(monkeypatch):
    """Tasks whose outcomes have reached the caller."""
    tasks = set()
    put = Inbox.put

    def noting(inbox, event):
        put(inbox, event)
        if isinstance(event, Done):
            tasks.add((event.key.model, event.key.fold))

    monkeypatch.setattr(Inbox, "put", noting)
    return tasks


def interrupted_at(line, delivered, executor, journal):
    """Run with Ctrl-C at a line; return it and the result, None where nothing was begun."""
    delivered.clear()
    ctrl_c = CtrlC(line, delivered)
    outer = sys.gettrace()
    sys.settrace(ctrl_c)
    try:
        result = af.run_cv(MODELS, FOLDS, backend=executor, journal=journal, progress=False)
    except KeyboardInterrupt as interrupt:
        result = getattr(interrupt, "result", None)
    finally:
        sys.settrace(outer)
    return ctrl_c, result


def test_ctrl_c_at_any_line_of_the_engine_loses_nothing(delivered, tmp_path):
    n_partial, line = 0, 1
    with af.get_executor("threads", 2) as executor:
        interrupted_at(0, delivered, executor, tmp_path / "first.sqlite")  # imports what is imported late
        while True:
            journal = tmp_path / f"{line}.sqlite"
            ctrl_c, result = interrupted_at(line, delivered, executor, journal)
            if ctrl_c.place is None:
                break
            if result is None:
                assert not ctrl_c.delivered, ctrl_c.place
            else:
                done = {(name, fold) for name in MODELS for fold in range(2)} - set(result.missing)
                assert done >= ctrl_c.delivered, ctrl_c.place
                again = af.run_cv(MODELS, FOLDS, backend="serial", journal=journal, progress=False)
                assert {(key.model, key.fold) for key in again.journal.taken} == done, ctrl_c.place
                n_partial += 0 < len(done) < 8
            line += STEP
    assert line > 2000
    assert n_partial > 10
