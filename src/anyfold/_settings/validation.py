"""Whether the values of settings are what they should be, by pydantic models made from the declaration.

Only `anyfold.settings` imports this file, and only when there is a value to check: importing pydantic
takes far longer than looking up defaults.
"""

from __future__ import annotations

import functools
import os
import reprlib
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Json,
    ValidationError,
    create_model,
)

from anyfold._settings.fields import ProgramSettings, Setting, settings_of, variable_of

__all__ = ["describe_problem", "validate_arguments", "validate_environment"]

Values = dict[str, Any]
Problems = dict[str, str]

_shorten = reprlib.Repr()
_shorten.maxstring = _shorten.maxother = 100


def validate_arguments(given: Mapping[str, Any]) -> tuple[Values, Problems]:
    """Return the settings that are valid and, by name, what is wrong with the others."""
    model = _argument_model()
    values, reasons = _validate(
        lambda skip: model(**{name: value for name, value in given.items() if name not in skip})
    )
    return values, {
        name: describe_problem(
            name, name, given[name], reason, remedy="Pass such a value or leave the argument out."
        )
        for name, reason in reasons.items()
    }


def validate_environment() -> tuple[Values, Problems]:
    """Do the same for the ``ANYFOLD_*`` variables that are set."""
    model = _environment_model()
    values, reasons = _validate(lambda skip: model(**{str(variable_of(name)): None for name in skip}))
    problems = {}
    for name, reason in reasons.items():
        variable = str(variable_of(name))
        remedy = "Unset the variable or set it to such a value."
        problems[name] = describe_problem(
            name, variable, os.environ[variable], reason, remedy=remedy, none=False
        )
    return values, problems


def describe_problem(
    name: str, label: str, value: Any, reason: str | None, *, remedy: str, none: bool = True
) -> str:
    """Say which value of which setting cannot be used, why, what is allowed and what to do."""
    _, setting = settings_of(ProgramSettings)[name]
    takes = setting.takes
    if none and setting.none is not None:
        takes += f", or None ({setting.none})"
    because = f" ({reason})" if reason else ""
    return f"{label}={_shorten.repr(value)} is not valid{because}: {name} takes {takes}. {remedy}"


def _validate(build: Callable[[Collection[str]], BaseModel]) -> tuple[Values, dict[str, str | None]]:
    """Build a model without the fields that are wrong; return the right ones and why others are wrong."""
    reasons: dict[str, str | None] = {}
    try:
        checked = build(())
    except ValidationError as error:
        for details in error.errors(include_url=False):
            cause = details.get("ctx", {}).get("error") if details["type"] in _TELLING else None
            reasons.setdefault(str(details["loc"][0]), None if cause is None else str(cause))
        checked = build(reasons)
    return {name: getattr(checked, name) for name in checked.model_fields_set - reasons.keys()}, reasons


_TELLING = {"value_error", "json_invalid"}
"""The kinds of pydantic errors that say more than the sentence about what is allowed."""


@functools.cache
def _argument_model() -> type[BaseModel]:
    """Make the model of values from Python, where ``True`` is no number and ``"4"`` is no integer."""
    strict = ConfigDict(strict=True, arbitrary_types_allowed=True)
    declared = settings_of(ProgramSettings).items()
    fields: dict[str, Any] = {name: (_checked(name, *each), None) for name, each in declared}
    model: type[BaseModel] = create_model("Arguments", __config__=strict, **fields)
    return model


@functools.cache
def _environment_model() -> type[BaseModel]:
    """Make the model of values from the environment, where everything is text."""
    from pydantic_settings import BaseSettings, SettingsConfigDict

    class Environment(BaseSettings):
        model_config = SettingsConfigDict(
            case_sensitive=True,
            env_ignore_empty=True,
            extra="ignore",
            loc_by_alias=False,
            arbitrary_types_allowed=True,
        )

    fields: dict[str, Any] = {
        name: (_checked(name, _in_text(hint), setting), Field(None, validation_alias=variable_of(name)))
        for name, (hint, setting) in settings_of(ProgramSettings).items()
        if setting.variable
    }
    model: type[BaseModel] = create_model("Variables", __base__=Environment, **fields)
    return model


def _in_text(declared: Any) -> Any:
    """Return the type by which text is read: JSON for a mapping, otherwise the type itself."""
    is_mapping = any(get_origin(option) is Mapping for option in get_args(declared))
    return Json[dict[str, Any]] | None if is_mapping else declared


def _checked(name: str, declared: Any, setting: Setting) -> Any:
    """Add to a type what it cannot say itself."""
    check = _CHECKS.get(name)
    after = AfterValidator(lambda value: value if value is None or check is None else check(value))
    return Annotated[declared, Field(**setting.limits), BeforeValidator(_python_scalar), after]


def _python_scalar(value: Any) -> Any:
    """Turn a numpy scalar into the Python value that it stands for; leave all else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _non_zero(n_jobs: int) -> int:
    if n_jobs == 0:
        raise ValueError("there is no work without workers")
    return n_jobs


def _named_or_instance(backend: Any) -> Any:
    if isinstance(backend, type):
        raise ValueError("this is a class; make an executor of it")
    if isinstance(backend, str) and not backend.strip():
        raise ValueError("the name is empty")
    return backend


def _amounts(resources: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    if not all(0 <= amount < float("inf") for wanted in resources.values() for amount in wanted.values()):
        raise ValueError("an amount is negative or not finite")
    return {model: dict(wanted) for model, wanted in resources.items()}


def _path(path: os.PathLike[str] | str) -> Path:
    if not os.fspath(path).strip():
        raise ValueError("the path is empty")
    return Path(path).expanduser()


def _writable_folder(folder: os.PathLike[str] | str) -> Path:
    path = _path(folder)
    if not path.is_dir():
        raise ValueError("it is not a folder" if path.exists() else "there is no such folder")
    try:
        with tempfile.TemporaryFile(dir=path):  # asks the file system; permission bits do not tell all
            return path
    except OSError as error:
        raise ValueError(f"it cannot be written to: {error.strerror}") from error


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "backend": _named_or_instance,
    "n_jobs": _non_zero,
    "resources": _amounts,
    "journal": _path,
    "callbacks": tuple,
    "backend_options": dict,
    "temp_dir": _writable_folder,
}
"""What a type cannot say, and what the value becomes."""
