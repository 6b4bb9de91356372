"""Category ``relay``: promise 9, warnings, logging and output of tasks reach the caller."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import Any

from anyfold.testing._base import ROOT, ContractBase, oracle
from anyfold.testing._case import contract_test
from anyfold.testing.probes import Logs, Prints, Probe, Warns, probe_data

__all__ = ["RelayTests"]

ORDER = [(name, row) for row in (0, 20, 40) for name in ("late", "soon")]
"""Tasks in their order, by model and first sample held out: folds first, then models as they were given."""


def _folds() -> Any:
    from sklearn.model_selection import KFold

    from anyfold import Folds

    return Folds(*probe_data(), cv=KFold(3))


def _told(result: Any) -> list[tuple[str, int, str]]:
    return [(warning.model, warning.fold, warning.message) for warning in result.warnings]


class RelayTests(ContractBase):
    """Whether the caller hears what tasks have to say."""

    @contract_test("relay")
    def test_warnings_are_kept_with_their_tasks(self) -> None:
        """Every warning of many tasks that run at once belongs to the task that issued it, in its order."""
        models = {f"model {i}": Warns(name=f"model {i}", times=3) for i in range(8)}
        expected, found = _told(oracle(models, _folds())), _told(self.run_cv(models, _folds()))
        assert len(expected) == 72
        wrong = [told for told in found if not told[2].startswith(told[0])]
        assert not wrong, f"{len(wrong)} warnings belong to other tasks, as {wrong[0]}"
        assert found == expected, f"{len(found)} warnings arrived, {len(expected)} on the serial backend"

    @contract_test("relay")
    def test_warnings_are_issued_again_in_the_order_of_tasks(self) -> None:
        """The caller is warned of each distinct warning, in the order of tasks, with their names."""
        told = self._warned({"late": Warns(name="late"), "soon": Warns(name="soon", on=(20, 40))})
        starts = [
            f"{name} warns without sample {row}, 0" for name, row in ORDER if (name, row) != ("soon", 0)
        ]
        assert [message.splitlines()[0] for message in told] == starts, f"the caller was told {told}"
        assert "model 'soon', fold 2" in told[-1], f"the fold is not named: {told[-1]}"

    @contract_test("relay")
    def test_the_callers_filters_hold_in_tasks(self) -> None:
        """What the caller ignores is not told, and what it turns into an error is one inside the task."""
        models = {"warns": Warns(name="warns", on=(20,)), "good": Probe()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert _told(self._run(models)) == [], "an ignored warning was told"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="warns warns")
            result = self._run(models)
        failed = [(failure.model, failure.fold, failure.type) for failure in result.failures]
        assert failed == [("warns", 1, "UserWarning")], f"failures are {failed}"

    @contract_test("relay")
    def test_logging_reaches_the_caller(self) -> None:
        """What tasks log reaches the caller's handlers in the order of tasks, and names the task."""
        records: list[str] = []

        class Keeps(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                records.append(record.getMessage())

        logger, handler = logging.getLogger("anyfold.testing.probe"), Keeps()
        logger.addHandler(handler)
        propagate, logger.propagate = logger.propagate, False
        try:
            result = self._run({name: Logs(name=name) for name in ("late", "soon")})
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate
        assert records == _lines("logs without"), f"the caller's handler got {records}"
        kept = [(told.model, told.fold, told.message) for told in result.logs]
        assert kept == _of_each_task("logs without"), f"the result has {kept}"

    @contract_test("relay")
    def test_output_reaches_the_caller(self) -> None:
        """What tasks print reaches the caller's ``sys.stdout`` in the order of tasks, and names the task."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            result = self._run({name: Prints(name=name) for name in ("late", "soon")})
        named = self.isolation != "none"
        if not named:
            self.note("naming the task in its output: it goes straight to the caller's terminal")
        lines = out.getvalue().splitlines()
        assert lines == _lines("prints without", named), f"the caller's output is {lines}"
        kept = [(told.model, told.fold, told.text.rstrip("\n")) for told in result.output]
        assert kept == _of_each_task("prints without"), f"the result has {kept}"

    def _warned(self, models: Any) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._run(models)
        return [str(warning.message) for warning in caught if warning.category is UserWarning]

    def _run(self, models: Any) -> Any:
        from anyfold import run_cv

        with self.executor() as executor:
            return run_cv(models, _folds(), backend=executor, random_state=ROOT, progress=False)


def _lines(verb: str, named: bool = True) -> list[str]:
    return [
        (f"[model {name!r}, fold {row // 20}] " if named else "") + f"{name} {verb} {row}"
        for name, row in ORDER
    ]


def _of_each_task(verb: str) -> list[tuple[str, int, str]]:
    return sorted((name, row // 20, f"{name} {verb} {row}") for name, row in ORDER)
