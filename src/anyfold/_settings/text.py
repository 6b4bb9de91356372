"""How settings are shown: in signatures, in docstrings."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from anyfold._settings.fields import Setting, settings_of, variable_of

__all__ = ["describe", "show_settings"]

F = TypeVar("F", bound=Callable[..., Any])

_ENTRY = re.compile(
    r"^(?P<indent>[ ]*)\*\*settings\b.*(?:\n(?:(?P=indent)[ ]+\S.*|[ ]*(?=\n(?P=indent)[ ]+\S)))*", re.M
)
"""The entry ``**settings`` of a numpydoc section, with everything that is indented below it."""


class _Unchanged:
    def __repr__(self) -> str:
        return "<unchanged>"


def describe(declaration: type, *, with_defaults: bool = True) -> str:
    """Return numpydoc entries of the settings of a declaration."""
    return "\n".join(
        _entry(name, hint, setting, with_defaults)
        for name, (hint, setting) in settings_of(declaration).items()
    )


def show_settings(function: F, declaration: type, *, with_defaults: bool = True) -> F:
    """Write the settings out in a function's signature and in place of ``**settings`` in its docstring.

    Without defaults, what is left out is shown as staying as it is.
    """
    signature = inspect.signature(function)
    spelled_out = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=setting.default if with_defaults else _Unchanged(),
            annotation=hint,
        )
        for name, (hint, setting) in settings_of(declaration).items()
    ]
    own = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    function.__signature__ = signature.replace(parameters=[*own, *spelled_out])  # type: ignore[attr-defined]
    if function.__doc__:  # absent under python -OO
        entries = describe(declaration, with_defaults=with_defaults)
        function.__doc__ = _ENTRY.sub(
            lambda entry: textwrap.indent(entries, entry["indent"]), function.__doc__
        )
    return function


def _entry(name: str, hint: Any, setting: Setting, with_default: bool) -> str:
    text = setting.help
    if setting.none is not None:
        text += f" None: {setting.none}."
    variable = variable_of(name)
    text += f" Environment variable: ``{variable}``." if variable else " It has no environment variable."
    head = f"{name} : {_in_words(hint)}, {f'default={setting.default!r}' if with_default else 'optional'}"
    return f"{head}\n{textwrap.fill(text, 96, initial_indent='    ', subsequent_indent='    ')}"


def _in_words(hint: Any) -> str:
    """Write a type as numpydoc does: ``int or None``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        *others, last = map(_in_words, arguments)
        return f"{', '.join(others)} or {last}"
    if origin is Literal:
        return f"{{{', '.join(map(repr, arguments))}}}"
    if origin is Mapping:
        return f"mapping of {_in_words(arguments[0])} to {_in_words(arguments[1])}"
    if origin is Sequence:
        return f"sequence of {_in_words(arguments[0])}"
    if hint is Any:
        return "object"
    if hint is NoneType:
        return "None"
    return "callable" if origin is Callable else getattr(origin or hint, "__name__", str(hint))
