"""Category ``timeouts``: promise 7, a hung fit is stopped, and the rest goes on."""

from __future__ import annotations

from typing import Any

from anyfold.errors import UnsupportedFeatureError
from anyfold.testing._base import ContractBase
from anyfold.testing._case import contract_test
from anyfold.testing.probes import Hangs, Probe, count_invocations, probe_data

__all__ = ["TimeoutTests"]

SECONDS = 1.5
"""Long enough for a probe to end on a slow machine, short enough to wait for."""


def _folds() -> Any:
    from sklearn.model_selection import KFold

    from anyfold import Folds

    return Folds(*probe_data(), cv=KFold(3))


class TimeoutTests(ContractBase):
    """Whether a task can be stopped."""

    @contract_test("timeouts")
    def test_a_hung_fit_is_stopped(self) -> None:
        """A fit that never ends fails after ``timeout`` seconds, once, with its stack; others go on."""
        folder = str(self.folder)
        models = {"hangs": Hangs(folder, "hangs", on=(20,)), "good": Probe(folder, "good")}
        if self._is_refused("healing", models, timeout=SECONDS):
            return
        with self.executor() as executor:
            result = self.run_cv(models, _folds(), executor, timeout=SECONDS, retries=2)
        assert [(f.model, f.fold) for f in result.failures] == [("hangs", 1)], result.failures
        failure = result.failures[0]
        assert failure.type == "TaskTimeoutError", f"the failure is {failure!r}"
        assert f"{SECONDS:g}" in failure.message, f"the limit is not told: {failure.message}"
        assert "in hold" in failure.traceback, f"where it hung is not told:\n{failure.traceback}"
        started = count_invocations(folder, "hangs-20")
        assert started == 1, f"a task that ran out of time was started {started} times"
        assert result["good"]["test_score"].tolist() == [1.0] * 3
        assert result["hangs"]["test_score"][[0, 2]].tolist() == [1.0] * 2

    @contract_test("timeouts")
    def test_a_worker_is_there_again_after_a_timeout(self) -> None:
        """After a hung task was stopped, the executor runs the next tasks, and quick ones are not touched."""
        models = {"hangs": Hangs(str(self.folder), on=(0,)), "good": Probe()}
        if self._is_refused("healing", models, timeout=SECONDS):
            return
        executor, _ = self.one_process()
        stopped = self.run_cv(models, _folds(), executor, timeout=SECONDS)
        assert len(stopped.failures) == 1, stopped.failures
        result = self.run_cv({"a": Probe(), "b": Probe()}, _folds(), executor, timeout=60)
        assert not result.failures, result.failures

    @contract_test("timeouts")
    def test_a_run_that_takes_too_long_returns_what_has_finished(self) -> None:
        """``time_limit`` ends a run in which tasks hang, and what had finished is there."""
        models = {"good": Probe(), "hangs": Hangs(str(self.folder), "hangs")}
        if self._is_refused("stop_running", models, time_limit=SECONDS):
            return
        with self.executor() as executor:
            self.run_cv(Probe(), _folds(), executor)  # starting workers is no part of what is measured
            result = self.run_cv(models, _folds(), executor, time_limit=SECONDS)
            assert result.interrupted, "the result does not say that it is not complete"
            assert ("hangs", 0) in result.missing, f"missing are {result.missing}"
            assert result["good"]["test_score"][0] == 1.0, "what had finished is lost"
            assert not self.run_cv(Probe(), _folds(), executor).failures, "unusable afterwards"

    def _is_refused(self, capability: str, models: Any, **setting: float) -> bool:
        """Return whether a limit cannot be kept; see that it is then refused rather than ignored."""
        if self.isolation == "process" and capability in self.capabilities:
            return False
        (name,) = setting
        (self.folder / "go").touch()  # nothing hangs where it is not refused
        why = "it does not declare " + repr(capability)
        self.note(f"{name}: {why if self.isolation == 'process' else 'a task needs a process of its own'}")
        try:
            self.run_cv(models, _folds(), **setting)
        except UnsupportedFeatureError as error:
            assert name in str(error), f"the refusal does not name the setting: {error}"
            return True
        raise AssertionError(f"{setting} was ignored by an executor that cannot stop a task")
