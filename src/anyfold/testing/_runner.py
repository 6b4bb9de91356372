"""Runs the contract without pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from anyfold.errors import InvalidInputError
from anyfold.testing._case import Result, run_case
from anyfold.testing.contract import ExecutorContract, contract_cases

__all__ = ["KNOWN_LIMITS", "contract_for", "run_contract"]

KNOWN_LIMITS: Mapping[str, Mapping[str, str]] = {
    "joblib": {
        "test_two_executors_do_not_disturb_each_other": "joblib has one pool for the whole process: "
        "stopping the work of one executor ends the workers of all"
    }
}
"""What backends that come with anyfold cannot do, by the tests that fail for it, and why."""


def run_contract(
    contract: type[ExecutorContract],
    *,
    categories: Iterable[str] | None = None,
    tests: Iterable[str] | None = None,
    report: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Run the tests of a contract class, one after the other.

    Parameters
    ----------
    contract : type
        A subclass of `ExecutorContract`.
    categories : iterable of str, optional
        Only those; all by default.
    tests : iterable of str, optional
        Only tests of these names.
    report : callable
        Is given each result as soon as there is one.

    Returns
    -------
    list of Result
        In the order in which the tests ran.

    Examples
    --------
    >>> from anyfold.testing import contract_for, run_contract
    >>> run_contract(contract_for("serial"), tests=["test_arguments_arrive"])[0].status
    'passed'
    """
    names = None if tests is None else set(tests)
    results = []
    try:
        for case in contract_cases(categories):
            if names is None or case.name in names:
                result = run_case(contract(), case)
                results.append(result)
                report(result)
    finally:
        contract.teardown_class()
    return results


class _Named(ExecutorContract):
    """The contract for a backend that is named rather than written."""

    backend: str

    def make_executor(self, max_workers: int, **options: Any) -> Any:
        module, colon, attribute = self.backend.partition(":")
        if not colon:
            from anyfold import get_executor

            return get_executor(self.backend, max_workers, **options)
        factory: Any = import_module(module)
        for part in attribute.split("."):
            factory = getattr(factory, part)
        return factory(max_workers=max_workers, **options)


def contract_for(backend: str, expected_failures: Mapping[str, str] | None = None) -> type[ExecutorContract]:
    """Return the contract for a backend by name, or for a factory ``package.module:factory``.

    Parameters
    ----------
    backend : str
        A name that `anyfold.available_backends` lists, or ``"package.module:factory"`` of something that
        is called with ``max_workers``.
    expected_failures : mapping of str to str, optional
        Tests that fail, and why; by default those of `KNOWN_LIMITS`.

    Raises
    ------
    UnknownBackendError
        If there is no such backend.
    MissingDependencyError
        If it needs a package that is not installed.
    InvalidInputError
        If the factory cannot be imported.

    Examples
    --------
    >>> from anyfold.testing import ExecutorContract, contract_for
    >>> issubclass(contract_for("threads"), ExecutorContract)
    True
    """
    attributes = {
        "__module__": __name__,
        "backend": backend,
        "expected_failures": dict(
            KNOWN_LIMITS.get(backend, {}) if expected_failures is None else expected_failures
        ),
    }
    contract: type[_Named] = type(f"Contract of {backend}", (_Named,), attributes)
    if ":" in backend:
        module, _, attribute = backend.partition(":")
        try:
            target: Any = import_module(module)
            for part in attribute.split("."):
                target = getattr(target, part)
        except (ImportError, AttributeError, ValueError) as error:
            raise InvalidInputError(
                f"{backend!r} cannot be imported as module:factory: {error}. Give the name of a backend, or "
                "package.module:factory of something that is called with max_workers"
            ) from error
        if not callable(target):
            raise InvalidInputError(
                f"{backend!r} is {target!r}, which makes no executor: it cannot be called"
            )
    else:
        from anyfold.executors.registry import find_backend

        found = find_backend(backend)
        if missing := found.missing():
            from anyfold.errors import MissingDependencyError

            raise MissingDependencyError(f"backend {backend!r} {missing}")
    return contract
