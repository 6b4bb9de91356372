"""What the ``ANYFOLD_*`` variables say at this moment."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Mapping
from typing import Any

from anyfold._settings.fields import ProgramSettings, settings_of, variable_of
from anyfold.errors import AnyfoldWarning

__all__ = ["read_environment", "unknown_variables"]

_PREFIX = "ANYFOLD_"

_OF_BACKENDS = frozenset({"ANYFOLD_DASK_ADDRESS", "ANYFOLD_RAY_ADDRESS"})
"""Variables that backends read for themselves, as they read options."""

_last: tuple[dict[str, str], dict[str, Any]] | None = None
"""The variables as they were when they were last parsed without problems, and their values."""

_warned: set[str] = set()


def read_environment() -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """Return the settings that variables give, and by name what is wrong with the others.

    A variable that anyfold does not know is warned about once.
    """
    global _last
    found = _variables()
    if not found:
        return {}, {}
    if _last is not None and _last[0] == found:
        return _last[1], {}
    for variable, message in unknown_variables().items():
        if variable not in _warned:
            _warned.add(variable)
            warnings.warn(message, AnyfoldWarning, stacklevel=5)
    from anyfold._settings.validation import validate_environment

    values, problems = validate_environment()
    if not problems:  # a folder that is missing now may be there next time
        _last = found, values
    return values, problems


def unknown_variables() -> dict[str, str]:
    """Return the variables that anyfold does not know, and what may have been meant."""
    known = {variable: name for name in settings_of(ProgramSettings) if (variable := variable_of(name))}
    unknown = _variables().keys() - known.keys() - _OF_BACKENDS
    return {name: _what_was_meant(name, known) for name in sorted(unknown)}


def _variables() -> dict[str, str]:
    """Return the variables of anyfold that are set and not empty."""
    names = [name for name in os.environ if name.startswith(_PREFIX)]
    return {name: value for name in names if (value := os.environ.get(name))}


def _what_was_meant(variable: str, known: Mapping[str, str]) -> str:
    name = variable.removeprefix(_PREFIX).lower()
    if name in settings_of(ProgramSettings):
        return f"{variable} is not read: {name} can be set in Python only, by config_context or set_config."
    near = difflib.get_close_matches(name, known.values(), cutoff=0.7)
    if near:
        meant = " or ".join(f"{_PREFIX}{each.upper()}" for each in near)
        return f"{variable} is not a variable of anyfold; did you mean {meant}?"
    return f"{variable} is not a variable of anyfold; those that are read are {', '.join(sorted(known))}."
