"""Which backends there are, by name."""

from __future__ import annotations

import difflib
import importlib.metadata
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from types import MappingProxyType
from typing import Any

from anyfold.errors import (
    InvalidInputError,
    InvalidSettingError,
    MissingDependencyError,
    UnknownBackendError,
)
from anyfold.executors.adapter import ForeignExecutor
from anyfold.executors.base import Executor

__all__ = [
    "BACKENDS",
    "ENTRY_POINT_GROUP",
    "AvailableBackend",
    "Backend",
    "available_backends",
    "get_executor",
    "register_backend",
    "takes_option",
]

ENTRY_POINT_GROUP = "anyfold.backends"
"""Where installed packages name backends of theirs: ``name = "module:class"``."""

Target = str | Callable[..., Executor]


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend by name; nothing of it is imported before it is used."""

    name: str
    target: Target
    """A class or function, or ``"module:attribute"``, that takes ``max_workers`` and keyword options."""
    requires: Mapping[str, str] = field(default_factory=dict)
    """The packages it imports -> what ``pip install`` must be given for them."""
    origin: str = "anyfold"
    """The distribution it comes from, or ``"register_backend"``."""

    def missing(self) -> str:
        """Return what to tell the user where a package is missing; empty where none is."""
        absent = [package for package in self.requires if importlib.util.find_spec(package) is None]
        if not absent:
            return ""
        commands = " ".join(f'"{self.requires[package]}"' for package in absent)
        return f"needs {_listed(absent)}, not installed here: pip install {commands}"


@dataclass(frozen=True, slots=True)
class AvailableBackend:
    """What is known of a backend without importing it."""

    name: str
    available: bool
    detail: str
    """Why it is not available and what helps; empty where there is nothing to say."""
    origin: str


def _built_in(*backends: Backend) -> dict[str, Backend]:
    return {backend.name: backend for backend in backends}


_backends = _built_in(
    Backend("serial", "anyfold.executors.serial:SerialExecutor"),
    Backend("threads", "anyfold.executors.threads:ThreadsExecutor"),
    Backend("processes", "anyfold.executors.processes:ProcessesExecutor"),
    Backend("multiprocessing", "anyfold.executors.multiprocessing:MultiprocessingExecutor"),
    Backend("loky", "anyfold.executors.loky:LokyExecutor", {"loky": "loky"}),
    Backend("joblib", "anyfold.executors.joblib:JoblibExecutor", {"joblib": "joblib"}),
    Backend("dask", "anyfold.executors.dask:DaskExecutor", {"distributed": "anyfold[dask]"}),
    Backend("ray", "anyfold.executors.ray:RayExecutor", {"ray": "anyfold[ray]"}),
)

AUTO = "auto"
"""Stands for whichever backend is best for a run."""

BACKENDS: Mapping[str, Backend] = MappingProxyType(_backends)
"""Backends of anyfold's and those given to `register_backend`; entry points are looked up when needed."""


def get_executor(name: str, n_jobs: int | None = None, **options: Any) -> Executor:
    """Make an executor, which is yours to shut down.

    Parameters
    ----------
    name : str
        A name that `available_backends` lists.
    n_jobs : int, optional
        Number of workers; -1 is all cores, -2 all but one, and so on. By default what `config_context`,
        ``ANYFOLD_N_JOBS`` or else the backend says, mostly all cores.
    **options
        Options of the backend, such as ``start_method`` of ``"multiprocessing"``.

    Returns
    -------
    Executor
        A PEP 3148 executor and context manager.

    Raises
    ------
    UnknownBackendError
        There is no such backend.
    MissingDependencyError
        It needs a package that is not installed.
    InvalidSettingError
        ``n_jobs`` is 0 or no integer, or the backend has no such option.

    Examples
    --------
    >>> from anyfold import get_executor
    >>> with get_executor("threads", n_jobs=2) as executor:
    ...     executor.submit(pow, 2, 5).result()
    32
    """
    from anyfold.settings import effective_n_jobs, get_config

    backend = find_backend(name)
    target = _load(backend)
    parameters = _parameters(target)
    _check_options(backend, parameters, options)
    config = get_config()
    if n_jobs is None:
        n_jobs = config["n_jobs"].value
    start_method = config["start_method"].value
    if start_method is not None and "start_method" in parameters:
        options.setdefault("start_method", start_method)
    # A backend whose number of workers has the default None has a number of its own.
    if n_jobs is not None or parameters["max_workers"].default is not None:
        options["max_workers"] = effective_n_jobs(n_jobs)
    if getattr(target, "one_at_a_time", False):
        from anyfold.executors._warm import let_go

        let_go(name)
    executor = target(**options)
    if hasattr(executor, "isolation"):
        return executor
    return ForeignExecutor(executor, owned=True)


def register_backend(
    name: str,
    target: Target,
    *,
    requires: str | Mapping[str, str] | None = None,
    replace: bool = False,
) -> None:
    """Give a backend a name.

    Parameters
    ----------
    name : str
        The name that ``backend=`` and `get_executor` are to know it by.
    target : callable or str
        What makes the executor: a class or function that takes ``max_workers`` and keyword options, or
        ``"module:attribute"``, imported when the backend is first used.
    requires : str or mapping of str to str, optional
        The package that it imports, or packages -> what to give to ``pip install`` for each.
    replace : bool, default=False
        Whether the name may be one that exists.

    Raises
    ------
    InvalidInputError
        The name exists, or an argument cannot be used.

    Notes
    -----
    An executor that does not say where it runs tasks (``isolation``) is taken for one that sends them to
    processes, unless it is a ``ThreadPoolExecutor``, and its calls are pickled by cloudpickle.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from anyfold import get_executor, register_backend
    >>> register_backend("my-threads", ThreadPoolExecutor)
    >>> with get_executor("my-threads", n_jobs=2) as executor:
    ...     executor.submit(pow, 2, 5).result()
    32
    """
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"name={name!r} is not a name of a backend: a string, not empty")
    if not callable(target) and (not isinstance(target, str) or ":" not in target):
        raise InvalidInputError(
            f'target={target!r} of backend {name!r} is neither callable nor "module:attribute"'
        )
    known = _backends.get(name)
    if known is not None and not replace:
        raise InvalidInputError(
            f"backend {name!r} exists already, from {known.origin}; choose another name or pass replace=True"
        )
    needed = {requires: requires} if isinstance(requires, str) else dict(requires or {})
    _backends[name] = Backend(name, target, needed, origin="register_backend")


def available_backends() -> list[AvailableBackend]:
    """Return all backends that are known by name, sorted by name.

    Returns
    -------
    list of AvailableBackend
        Each with ``name``, ``available``, ``detail`` (why not, and what helps) and ``origin``.

    Examples
    --------
    >>> from anyfold import available_backends
    >>> [backend.name for backend in available_backends() if backend.origin == "anyfold"]
    ['dask', 'joblib', 'loky', 'multiprocessing', 'processes', 'ray', 'serial', 'threads']
    """
    rows = [_row(backend) for backend in _backends.values()]
    for backend in _from_entry_points():
        if backend.name in _backends:
            detail = (
                f"not used: the name belongs to {_backends[backend.name].origin}; "
                "register_backend(…, replace=True) gives it away"
            )
            rows.append(AvailableBackend(backend.name, False, detail, backend.origin))
        else:
            rows.append(_row(backend))
    return sorted(rows, key=lambda row: (row.name, not row.available))


def _row(backend: Backend) -> AvailableBackend:
    missing = backend.missing()
    return AvailableBackend(backend.name, not missing, missing, backend.origin)


def find_backend(name: str) -> Backend:
    """Return the backend of that name; those of anyfold and of `register_backend` come first."""
    if name in _backends:
        return _backends[name]
    named = {backend.name: backend for backend in _from_entry_points()}
    if name in named:
        return named[name]
    known = sorted({*_backends, *named})
    if name == AUTO:
        raise UnknownBackendError(
            f"'auto' is chosen by each run, and is no backend of its own: name one of {_listed(known, 'or')}"
        )
    known = sorted([*known, AUTO])
    near = difflib.get_close_matches(str(name), known, n=3)
    hint = f"did you mean {_listed(near, 'or')}? " if near else ""
    raise UnknownBackendError(f"there is no backend {name!r}; {hint}known are {_listed(known)}")


def takes_option(name: str, option: str) -> bool:
    """Return whether a backend has that option."""
    parameters = _parameters(_load(find_backend(name)))
    return option in parameters


def _from_entry_points() -> Iterable[Backend]:
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        origin = point.dist.name if point.dist is not None else "an entry point"
        yield Backend(point.name, point.value, origin=origin)


def _load(backend: Backend) -> Callable[..., Executor]:
    missing = backend.missing()
    if missing:
        raise MissingDependencyError(f"backend {backend.name!r} {missing}")
    if not isinstance(backend.target, str):
        return backend.target
    module, _, attribute = backend.target.partition(":")
    try:
        target: Any = import_module(module.strip())
        for part in attribute.split("[")[0].strip().split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        where = f"backend {backend.name!r} of {backend.origin}"
        raise MissingDependencyError(
            f"{where} cannot be imported from {backend.target!r}: {error}"
        ) from error
    loaded: Callable[..., Executor] = target
    return loaded


def _parameters(target: Callable[..., Executor]) -> Mapping[str, inspect.Parameter]:
    try:
        return _parameters_of(target)
    except TypeError:  # it cannot be told from others
        return inspect.signature(target).parameters


@lru_cache(maxsize=32)
def _parameters_of(target: Callable[..., Executor]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(target).parameters


def _check_options(
    backend: Backend, parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Any]
) -> None:
    if "max_workers" not in parameters:
        raise InvalidInputError(f"{backend.target!r}, backend {backend.name!r}, does not take max_workers")
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    allowed = [name for name in parameters if name != "max_workers"]
    for option in options:
        if option in allowed:
            continue
        near = difflib.get_close_matches(option, allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        options_of = f"its options are {_listed(allowed)}" if allowed else "it has no options"
        if option == "max_workers":
            options_of = "the number of workers is n_jobs"
        raise InvalidSettingError(f"backend {backend.name!r} has no option {option!r}; {hint}{options_of}")


def _listed(names: Iterable[str], conjunction: str = "and") -> str:
    *rest, last = [repr(name) for name in names]
    return f"{', '.join(rest)} {conjunction} {last}" if rest else last
