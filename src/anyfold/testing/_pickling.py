"""Category ``pickling``: promise 4, anything defined anywhere works, and what cannot travel is told."""

from __future__ import annotations

import textwrap
from typing import Any

from sklearn.base import BaseEstimator

from anyfold.errors import UnreadableResultError
from anyfold.testing._base import ContractBase
from anyfold.testing._case import contract_test
from anyfold.testing._limits import PATIENCE
from anyfold.testing._scripts import NOTEBOOK, ended_script
from anyfold.testing.probes import (
    Probe,
    UnpicklableError,
    UnpicklableObject,
    UnreadableObject,
    add,
    probe_data,
    raise_error,
)

__all__ = ["PicklingTests"]


class _Holds(BaseEstimator):  # type: ignore[misc]
    """A model with a parameter that may not travel."""

    def __init__(self, parameter: Any = None) -> None:
        self.parameter = parameter

    def fit(self, X: Any, y: Any = None) -> _Holds:
        return self

    def score(self, X: Any, y: Any = None) -> float:
        return 1.0

    def __sklearn_clone__(self) -> _Holds:
        return _Holds(self.parameter)


class _RaisesUnpicklable(Probe):
    def _act(self, held_out: int, earlier: int) -> None:
        raise UnpicklableError(f"stays with fold {held_out}")


class _KeepsUnpicklable(Probe):
    def _act(self, held_out: int, earlier: int) -> None:
        self.kept_ = UnpicklableObject()


def _folds() -> Any:
    from anyfold import Folds

    return Folds(*probe_data(), cv=3)


class PicklingTests(ContractBase):
    """Whether it matters where something was defined."""

    @contract_test("pickling")
    def test_functions_defined_anywhere_are_tasks(self) -> None:
        """Lambdas, closures and instances of local classes can be submitted and returned."""

        class Local:
            def __init__(self, value: int) -> None:
                self.value = value

        offset = 10
        with self.executor() as executor:
            returned = executor.submit(lambda x: Local(x + offset), 1).result(PATIENCE)
            assert type(returned) is Local, f"a local class came back as {type(returned)}"
            assert returned.value == 11

    @contract_test("pickling")
    def test_models_of_a_notebook_can_be_run(self) -> None:
        """Classes and scorers of a namespace that no module stands behind are used as they are."""
        namespace: dict[str, Any] = {"__name__": "__main__"}
        exec(textwrap.dedent(NOTEBOOK), namespace)
        result = self.run_cv({"m": namespace["Model"]()}, _folds(), scoring=namespace["scorer"])
        assert not result.failures, result.failures[0].traceback
        assert result["m"]["test_score"].tolist() == [82.0] * 3

    @contract_test("pickling")
    def test_models_of_a_script_can_be_run(self) -> None:
        """A script without a main guard can run models and scorers of its own, and is run once."""
        script = ended_script(self)
        assert script.out.strip() == "[82.0, 82.0, 82.0] () __main__", (
            f"a script that uses the executor printed\n{script.out}\nand told\n{script.err}"
        )

    @contract_test("pickling")
    def test_a_task_that_cannot_be_pickled_fails_alone(self) -> None:
        """Arguments that cannot be pickled, or not be unpickled, fail their own future, and no other."""
        with self.executor() as executor:
            if self.isolation != "process":
                thing = UnpicklableObject()
                assert executor.submit(lambda x: x, thing).result(PATIENCE) is thing
                return
            beside = executor.submit(add, 1)
            error = executor.submit(add, UnpicklableObject()).exception(PATIENCE)
            assert isinstance(error, TypeError), f"a task that cannot be pickled: {error!r}"
            error = executor.submit(add, UnreadableObject()).exception(PATIENCE)
            assert error is not None, "a task that cannot be unpickled has a result"
            assert "cannot be read" in _told(error), f"a task that cannot be unpickled: {_told(error)}"
            assert beside.result(PATIENCE) == 1
            assert executor.submit(add, 2).result(PATIENCE) == 2, "unusable afterwards"

    @contract_test("pickling")
    def test_a_result_that_cannot_be_pickled_is_an_error(self) -> None:
        """A result that cannot make the journey is an error that says so, and harms no other task."""
        with self.executor() as executor:
            if self.isolation != "process":
                assert isinstance(executor.submit(UnpicklableObject).result(PATIENCE), UnpicklableObject)
                return
            for thing in (UnpicklableObject, UnreadableObject):
                error = executor.submit(thing).exception(PATIENCE)
                assert isinstance(error, UnreadableResultError), f"a result {thing.__name__}: {error!r}"
            assert executor.submit(add, 2).result(PATIENCE) == 2, "unusable afterwards"

    @contract_test("pickling")
    def test_an_exception_that_cannot_be_pickled_is_told(self) -> None:
        """An exception that cannot make the journey arrives as an error with its type and message."""
        with self.executor() as executor:
            error = executor.submit(_raise_unpicklable, "stays there").exception(PATIENCE)
            assert error is not None, "a task raised, its future has no exception"
            if self.isolation == "process":
                told = _told(error)
                assert "UnpicklableError" in told and "stays there" in told, f"it arrived as {told}"
            else:
                assert type(error) is UnpicklableError
            assert type(executor.submit(raise_error, ValueError("x")).exception(PATIENCE)) is ValueError

    @contract_test("pickling")
    def test_a_model_that_cannot_be_pickled_is_told_before_anything_runs(self) -> None:
        """In processes a model that cannot be sent is an error that says so; elsewhere it is run."""
        models = {"good": Probe(str(self.folder), "good"), "bad": _Holds(UnpicklableObject())}
        if self.isolation != "process":
            result = self.run_cv(models, _folds())
            assert not result.failures
            assert result["bad"]["test_score"].tolist() == [1.0] * 3
            return
        try:
            self.run_cv(models, _folds())
        except TypeError as error:
            assert "stays where it is" in _told(error), f"the error does not give the reason: {_told(error)}"
            assert not list(self.folder.iterdir()), "models were run before the error"
        else:
            raise AssertionError("a model that cannot be pickled was run in another process")

    @contract_test("pickling")
    def test_what_a_model_leaves_that_cannot_be_pickled_fails_that_task(self) -> None:
        """Exceptions and fitted attributes that cannot be pickled are failures of their own tasks only."""
        models = {"raises": _RaisesUnpicklable(on=(0,)), "keeps": _KeepsUnpicklable(on=(0,)), "good": Probe()}
        result = self.run_cv(models, _folds(), return_estimator=True)
        failed = {(failure.model, failure.fold): failure for failure in result.failures}
        assert set(failed) == {("raises", 0), ("keeps", 0)}, f"failures are {list(failed)}"
        assert failed["raises", 0].type == "UnpicklableError"
        assert failed["raises", 0].message == "stays with fold 0"
        assert failed["keeps", 0].stage == "result"
        assert result.estimators("good")[0].classes_.tolist() == [0, 1]


def _raise_unpicklable(message: str) -> None:
    raise UnpicklableError(message)


def _told(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))
