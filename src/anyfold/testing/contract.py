"""The contract: one class that holds the tests of all categories, and what a subclass may say."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from anyfold.testing._capabilities import CapabilityTests
from anyfold.testing._case import CATEGORIES, Case, case_of
from anyfold.testing._configuration import ConfigurationTests
from anyfold.testing._data_tests import DataTests
from anyfold.testing._errors import ErrorTests
from anyfold.testing._identity import IdentityTests
from anyfold.testing._interrupts import InterruptTests
from anyfold.testing._lost_workers import LostWorkerTests
from anyfold.testing._pickling import PicklingTests
from anyfold.testing._protocol import ProtocolTests
from anyfold.testing._relay import RelayTests
from anyfold.testing._seeds import SeedTests
from anyfold.testing._threads import ThreadTests
from anyfold.testing._timeouts import TimeoutTests

__all__ = ["ExecutorContract", "contract_cases"]


class ExecutorContract(
    CapabilityTests,
    ProtocolTests,
    DataTests,
    IdentityTests,
    SeedTests,
    PicklingTests,
    ErrorTests,
    LostWorkerTests,
    TimeoutTests,
    InterruptTests,
    RelayTests,
    ThreadTests,
    ConfigurationTests,
):
    """What every executor must do, as tests; subclass it and say how to make yours.

    pytest finds the class by its name; ``python -m anyfold check module:factory`` runs the same tests
    without pytest. What an executor can do is read from it (``isolation``, ``capabilities``,
    ``max_workers``): for what it does not declare, the tests assert that asking is refused. `serial` is the
    oracle. Tests that run a script of their own need a class that cloudpickle can pickle.

    Attributes
    ----------
    expected_failures : dict of str to str
        Tests that fail, and why. A test that passes although it stands here is an error.
    time_limit : float, default=100
        Seconds that one test may take; then the stacks of all threads are shown, and it has failed.

    Raises
    ------
    TypeError
        When a subclass is made that overrides a test, or expects failures of tests that do not exist.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from anyfold.testing import ExecutorContract, run_contract
    >>> class TestMyExecutor(ExecutorContract):
    ...     def make_executor(self, max_workers, **options):
    ...         return ThreadPoolExecutor(max_workers, **options)
    >>> run_contract(TestMyExecutor, tests=["test_arguments_arrive"])[0].status
    'passed'
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = {case.name for case in contract_cases()}
        for name in known:
            if inspect.getattr_static(cls, name) is not inspect.getattr_static(ExecutorContract, name):
                raise TypeError(
                    f"{cls.__qualname__} overrides {name}, a test of the contract. Tests cannot be changed; "
                    f"where yours cannot pass, say why in expected_failures = {{{name!r}: 'reason'}}"
                )
        for name, reason in cls.expected_failures.items():
            if name not in known:
                raise TypeError(f"{cls.__qualname__} expects {name!r} to fail, but there is no such test")
            if not isinstance(reason, str) or not reason.strip():
                raise TypeError(f"{cls.__qualname__} expects {name} to fail, but gives no reason: {reason!r}")


def contract_cases(categories: Iterable[str] | None = None) -> list[Case]:
    """Return the tests of the contract, by category and then as they are written.

    Parameters
    ----------
    categories : iterable of str, optional
        Only those; all by default.

    Raises
    ------
    ValueError
        If there is no such category.
    """
    wanted = list(CATEGORIES) if categories is None else list(categories)
    if unknown := [name for name in wanted if name not in CATEGORIES]:
        raise ValueError(f"there is no category {unknown[0]!r}; there are {', '.join(CATEGORIES)}")
    found = [
        case
        for base in ExecutorContract.__mro__
        for member in vars(base).values()
        if (case := case_of(member)) is not None
    ]
    order = {name: position for position, name in enumerate(CATEGORIES)}
    return sorted((case for case in found if case.category in wanted), key=lambda case: order[case.category])
