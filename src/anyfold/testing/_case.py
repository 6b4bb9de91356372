"""What a test of the contract is: its category, its time limit, and how one is run and judged."""

from __future__ import annotations

import functools
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar, cast

from anyfold.testing._limits import time_limit

__all__ = ["CATEGORIES", "Case", "ContractError", "Result", "Subject", "case_of", "contract_test", "run_case"]

Category = Literal[
    "protocol",
    "data",
    "identity",
    "seeds",
    "pickling",
    "errors",
    "lost_workers",
    "timeouts",
    "interrupts",
    "relay",
    "threads",
    "configuration",
]
CATEGORIES: Mapping[Category, str] = {
    "protocol": "the executor does what PEP 3148 and its own declarations say",
    "data": "data arrives unchanged, is sent once, is read-only and is let go",
    "identity": "outcomes equal the serial backend's to the last bit",
    "seeds": "seeds depend on what a task is, and the caller's generators are left alone",
    "pickling": "anything defined anywhere works, and what cannot travel is told",
    "errors": "errors of models are results",
    "lost_workers": "a worker that dies costs no other task",
    "timeouts": "a hung fit is stopped",
    "interrupts": "nothing hangs, nothing is left",
    "relay": "warnings, logging and output of tasks reach the caller",
    "threads": "threads and tasks keep to their budget",
    "configuration": "scikit-learn's configuration and the settings of a run arrive",
}
"""What is promised in each category."""

Status = Literal["passed", "failed", "expected failure", "unexpected pass"]


class ContractError(AssertionError):
    """A test that was expected to fail has passed."""


class Subject(Protocol):
    """What a test needs to know of the class that it belongs to."""

    expected_failures: ClassVar[Mapping[str, str]]
    time_limit: ClassVar[float]
    notes: list[str]

    def setup_method(self) -> None: ...

    def teardown_method(self) -> None: ...

    def after_failure(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Case:
    """One test of the contract."""

    name: str
    category: Category
    intent: str
    body: Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one test.

    Attributes
    ----------
    name, category, intent : str
        The test, its category, and what it checks.
    status : {"passed", "failed", "expected failure", "unexpected pass"}
    seconds : float
        How long it took.
    reason : str
        Why it failed, or was expected to; empty where it passed.
    traceback : str
        The code that failed.
    notes : tuple of str
        What the backend cannot do, where the test asserted that it says so.

    Examples
    --------
    >>> from anyfold.testing import contract_for, run_contract
    >>> (result,) = run_contract(contract_for("serial"), tests=["test_arguments_arrive"])
    >>> result.category, result.status
    ('protocol', 'passed')
    """

    name: str
    category: Category
    intent: str
    status: Status
    seconds: float
    reason: str = ""
    traceback: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether the backend keeps the promise, or fails as it says that it does."""
        return self.status in ("passed", "expected failure")


F = TypeVar("F", bound=Callable[[Any], None])


def contract_test(category: Category) -> Callable[[F], F]:
    """Make a method a test of the contract.

    Parameters
    ----------
    category : str
        One of `CATEGORIES`. ``pytest -k CATEGORY`` selects by it.
    """

    def decorate(function: F) -> F:
        intent = " ".join((function.__doc__ or "").split())
        if not intent:
            raise TypeError(f"{function.__qualname__} has no docstring that says what it is for")
        case = Case(function.__name__, category, intent, function)

        @functools.wraps(function)
        def run_by_pytest(self: Any) -> None:
            __tracebackhide__ = True
            _judge_for_pytest(self, case)

        # pytest selects by the names in a function's __dict__ (-k), so that no marker need be registered.
        run_by_pytest.__dict__.update({"contract_case": case, "category": category, category: True})
        return cast(F, run_by_pytest)

    return decorate


def case_of(function: Any) -> Case | None:
    """Return the test that a method is; None where it is none of the contract's."""
    case: Case | None = getattr(function, "contract_case", None)
    return case


def run_case(subject: Subject, case: Case) -> Result:
    """Run one test, with its surroundings and within its time limit, and judge it."""
    started = time.perf_counter()
    error: BaseException | None = None
    try:
        subject.setup_method()
        try:
            _attempt(subject, case)
        finally:
            subject.teardown_method()
    except Exception as caught:
        error = caught
    seconds = time.perf_counter() - started
    expected = subject.expected_failures.get(case.name)
    notes = tuple(subject.notes)
    if error is None:
        if expected is None:
            return Result(case.name, case.category, case.intent, "passed", seconds, notes=notes)
        return Result(
            case.name, case.category, case.intent, "unexpected pass", seconds, _passes(expected), notes=notes
        )
    status: Status = "failed" if expected is None else "expected failure"
    reason = expected if expected is not None else _first_line(error)
    text = "".join(traceback.format_exception(error))
    return Result(case.name, case.category, case.intent, status, seconds, reason, text, notes)


def _attempt(subject: Subject, case: Case) -> None:
    try:
        with time_limit(subject.time_limit, case.name):
            case.body(subject)
    except BaseException:
        subject.after_failure()
        raise


def _judge_for_pytest(subject: Subject, case: Case) -> None:
    __tracebackhide__ = True
    expected = subject.expected_failures.get(case.name)
    if expected is None:
        _attempt(subject, case)
        return
    try:
        _attempt(subject, case)
    except Exception:
        pytest = sys.modules.get("pytest")
        if pytest is None:  # another runner: the failure itself is all that can be said
            raise
        pytest.xfail(expected)
    raise ContractError(_passes(expected))


def _passes(expected: str) -> str:
    return f"passes, but was expected to fail: {expected!r}. Take it off the expected failures"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    if not lines:  # what was asserted says most
        lines = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__)[-1:]]
    return ": ".join([type(error).__name__, *lines[:1]])
