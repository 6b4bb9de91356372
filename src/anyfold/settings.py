"""How to run: one typed set of settings, and where the value of each comes from.

A value is looked for when a call is made, in this order::

    argument > config_context (innermost first) > set_config > ANYFOLD_* variable > default

What a higher level gives hides what is below it, errors included: a broken variable is an error only
where its value would be used (``python -m anyfold doctor`` shows it in any case). A variable that is
empty counts as unset.

Giving None means what the setting says None means: ``timeout=None`` is "no limit", also where the
environment sets one. Where None has no meaning of its own (``backend``, ``n_jobs``, ``inner_threads``,
``retries``, ``callbacks``, ``backend_options``) it counts as not given, so that a function of yours can
pass its own ``n_jobs=None`` on.

A context holds for its own thread or asyncio task and what that awaits or starts as a task; a new thread
starts from `set_config` and the environment, unless it is run in a copy of the context
(`contextvars.copy_context`, `asyncio.to_thread`).
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, Unpack

from anyfold._settings.fields import ProgramSettings, Resolved, Settings, settings_of, variable_of
from anyfold._settings.levels import (
    DECIDED_BY_EXECUTOR,
    Config,
    ConfigValue,
    change_process,
    context,
    look_up,
)
from anyfold._settings.text import describe, show_settings
from anyfold.errors import InvalidSettingError
from anyfold.executors.base import Executor

__all__ = [
    "Config",
    "ConfigValue",
    "ProgramSettings",
    "Resolved",
    "Settings",
    "config_context",
    "effective_n_jobs",
    "get_config",
    "resolve",
    "set_config",
    "settings_docs",
    "with_settings_signature",
]

F = TypeVar("F", bound=Callable[..., Any])


def resolve(given: Mapping[str, Any], *, caller: Callable[..., object] | str = "anyfold") -> Resolved:
    """Decide the value of every setting for one call.

    Parameters
    ----------
    given : mapping of str to object
        The ``**settings`` of a front door.
    caller : callable or str, default="anyfold"
        The front door or its name, for messages; of a callable, its own parameters are offered too where
        a name is misspelt.

    Returns
    -------
    Resolved
        All settings, and where each came from.

    Raises
    ------
    TypeError
        If there is no such setting, or if it concerns the whole program and is no argument of a call.
    InvalidSettingError
        If values cannot be used; the message lists all of them.
    """
    arguments, unknown, problems = _check(given, Settings, caller)
    config, broken = look_up(arguments)
    problems |= _beside_executor(config["backend"].value, arguments)
    _raise_if_any(unknown, {**problems, **broken})
    values = {name: entry.value for name, entry in config.items()}
    # The default is shared, and who gave a mapping may go on changing it.
    values["backend_options"] = dict(values["backend_options"])
    return Resolved(**values, sources={name: entry.source for name, entry in config.items()})


def get_config() -> Config:
    """Return the settings in force here, each with its value and its source.

    Returns
    -------
    Config
        Name -> ``(value, source)``, where the source is ``"config_context"``, ``"set_config"``,
        ``"environment variable ANYFOLD_…"`` or ``"default"``.

    Raises
    ------
    InvalidSettingError
        If a variable that counts has a value that cannot be used.

    Examples
    --------
    >>> from anyfold.settings import config_context, get_config
    >>> with config_context(retries=0):
    ...     get_config()["retries"]
    ConfigValue(value=0, source='config_context')
    """
    config, broken = look_up({})
    _raise_if_any([], broken)
    return config


@contextmanager
def config_context(**settings: Unpack[ProgramSettings]) -> Iterator[None]:
    """Set settings for the calls inside a ``with`` block or a decorated function.

    It holds for the current thread or asyncio task only. Contexts nest: what an inner one does not name
    stays as the outer one has it.

    Parameters
    ----------
    **settings : ProgramSettings
        The settings to change.

    Yields
    ------
    None
        The block runs with the settings.

    Raises
    ------
    TypeError
        If there is no such setting.
    InvalidSettingError
        If values cannot be used; the message lists all of them.

    Examples
    --------
    >>> from anyfold.settings import config_context, get_config
    >>> with config_context(backend="threads"), config_context(n_jobs=2):
    ...     config = get_config()
    >>> config["backend"].value, config["n_jobs"].value
    ('threads', 2)
    """
    changes = _changes(settings, "config_context")
    token = context.set({**context.get(), **changes})
    try:
        yield
    finally:
        context.reset(token)


def set_config(*, reset: bool | str | Iterable[str] = False, **settings: Unpack[ProgramSettings]) -> None:
    """Set settings for the whole process: all threads, until they are set again.

    Parameters
    ----------
    reset : bool, str or iterable of str, default=False
        Settings to return to the environment and the default first: True for all, or names.
    **settings : ProgramSettings
        The settings to change. A setting that is left out stays as it is.

    Raises
    ------
    TypeError
        If there is no such setting.
    InvalidSettingError
        If values cannot be used; the message lists all of them, and nothing is changed.

    Examples
    --------
    >>> from anyfold.settings import get_config, set_config
    >>> set_config(retries=5)
    >>> get_config()["retries"]
    ConfigValue(value=5, source='set_config')
    >>> set_config(reset="retries")
    """
    known = settings_of(ProgramSettings)
    if isinstance(reset, bool):
        forgotten: set[str] = set(known) if reset else set()
    else:
        forgotten = {reset} if isinstance(reset, str) else set(reset)
        if unknown := [
            _unknown_setting(name, known, "set_config") for name in sorted(forgotten - set(known))
        ]:
            raise TypeError("\n".join(unknown))
    changes = _changes(settings, "set_config")
    change_process(changes, forget=forgotten)


def effective_n_jobs(n_jobs: int | None) -> int:
    """Return how many workers a value of ``n_jobs`` means on this machine.

    The cores that are counted are those that this process may use: affinity, the quota of its control
    group and ``LOKY_MAX_CPU_COUNT`` are respected, by `joblib.cpu_count`.

    Parameters
    ----------
    n_jobs : int or None
        Number of workers; None and -1 are all cores, -2 is all but one, and so on.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    InvalidSettingError
        If ``n_jobs`` is 0 or no integer.

    Examples
    --------
    >>> from anyfold.settings import effective_n_jobs
    >>> effective_n_jobs(3)
    3
    """
    wanted: int = _changes({"n_jobs": n_jobs}, "effective_n_jobs").get("n_jobs", -1)
    if wanted > 0:
        return wanted
    import joblib

    cores: int = joblib.cpu_count()
    return max(cores + 1 + wanted, 1)


def with_settings_signature(function: F) -> F:
    """Write all settings out in the signature and the docstring of a front door.

    ``**settings`` becomes one keyword parameter per setting in ``__signature__``, and the numpydoc entry
    ``**settings : Settings`` becomes one entry per setting, for `help` and completion.

    Parameters
    ----------
    function : callable
        A function that takes ``**settings: Unpack[Settings]``.

    Returns
    -------
    callable
        The same function.
    """
    return show_settings(function, Settings)


def settings_docs() -> str:
    """Return numpydoc entries for the settings of a front door.

    Returns
    -------
    str
        For each setting its type, default, meaning, unit and environment variable.
    """
    return describe(Settings)


def _check(
    given: Mapping[str, Any], declaration: type, caller: Callable[..., object] | str
) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    """Return what is given, the names that are unknown, and by name what is wrong with values."""
    known = settings_of(declaration)
    unknown = [_unknown_setting(name, known, caller) for name in given if name not in known]
    present = {
        name: value
        for name, value in given.items()
        if name in known and not (value is None and known[name][1].none is None)
    }
    if not present:
        return {}, unknown, {}
    from anyfold._settings.validation import validate_arguments

    valid, problems = validate_arguments(present)
    return {**present, **valid}, unknown, problems


def _changes(settings: Mapping[str, Any], caller: str) -> dict[str, Any]:
    """Return what is given to a context, checked."""
    changes, unknown, problems = _check(settings, ProgramSettings, caller)
    _raise_if_any(unknown, problems | _beside_executor(changes.get("backend"), changes))
    return changes


def _beside_executor(backend: Any, given: Mapping[str, Any]) -> dict[str, str]:
    """Return what has no effect in a call, by name, because its backend is an executor instance."""
    if isinstance(backend, (str, type)) or not isinstance(backend, Executor):
        return {}
    return {
        name: f"{name}={given[name]!r} has no effect on an executor, which was made with its own. "
        f"Leave {name} out, or pass the name of a backend instead of an executor."
        for name in DECIDED_BY_EXECUTOR
        if name in given
    }


def _unknown_setting(name: str, known: Collection[str], caller: Callable[..., object] | str) -> str:
    """Say that there is no such setting, and what may have been meant."""
    own: Collection[str] = ()
    if callable(caller):
        parameters = inspect.signature(caller).parameters.values()
        own = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
        caller = caller.__name__
    start = f"{caller}() got an unexpected setting {name!r}"
    if name in settings_of(ProgramSettings):
        return (
            f"{start}: it concerns the whole program; use config_context, set_config or {variable_of(name)}"
        )
    near = difflib.get_close_matches(name, {*known, *own})
    if near:
        return f"{start}; did you mean {' or '.join(map(repr, near))}?"
    return f"{start}; the settings are {', '.join(known)}"


def _raise_if_any(unknown: Sequence[str], problems: Mapping[str, str]) -> None:
    """Report all that is wrong with one call at once."""
    if unknown:
        raise TypeError("\n".join([*unknown, *problems.values()]))
    if problems:
        raise InvalidSettingError("\n".join(problems.values()))


# At the end, since what is shown is no part of what these functions do.
show_settings(config_context, ProgramSettings, with_defaults=False)
show_settings(set_config, ProgramSettings, with_defaults=False)
