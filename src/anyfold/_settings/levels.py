"""Where the value of each setting comes from: argument, context, process, environment, default."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple

from anyfold._settings.environment import read_environment
from anyfold._settings.fields import ProgramSettings, settings_of, variable_of

__all__ = ["DECIDED_BY_EXECUTOR", "Config", "ConfigValue", "change_process", "context", "look_up"]

DECIDED_BY_EXECUTOR = ("n_jobs", "backend_options")
"""Settings that mean nothing to an executor instance, which was made with its own."""

context: ContextVar[Mapping[str, Any]] = ContextVar("anyfold_settings", default=MappingProxyType({}))
"""What the contexts around this point give, the innermost winning."""

_process: Mapping[str, Any] = MappingProxyType({})
_process_lock = threading.Lock()


class ConfigValue(NamedTuple):
    """The value of a setting and where it came from.

    Parameters
    ----------
    value : object
        The value.
    source : str
        ``"argument"``, ``"config_context"``, ``"set_config"``, ``"environment variable ANYFOLD_…"`` or
        ``"default"``.
    """

    value: Any
    source: str


class Config(dict[str, ConfigValue]):
    """The settings in force, by name; its repr is a table."""

    def __repr__(self) -> str:
        rows = [(name, repr(entry.value), entry.source) for name, entry in self.items()]
        first, second = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
        return "\n".join(f"{name:<{first}}  {value:<{second}}  {source}" for name, value, source in rows)


def change_process(changes: Mapping[str, Any], *, forget: Collection[str]) -> None:
    """Give settings to the whole process, after forgetting others."""
    global _process
    with _process_lock:
        kept = {name: value for name, value in _process.items() if name not in forget}
        _process = {**kept, **changes}


def look_up(arguments: Mapping[str, Any]) -> tuple[Config, dict[str, str]]:
    """Return each setting with its source, and by name what is wrong with variables that count."""
    from_environment, broken = read_environment()
    levels = (("argument", arguments), ("config_context", context.get()), ("set_config", _process))
    config, problems = Config(), {}
    for name, (_, setting) in settings_of(ProgramSettings).items():
        for source, level in levels:
            if name in level:
                config[name] = ConfigValue(level[name], source)
                break
        else:
            if name in from_environment:
                source = f"environment variable {variable_of(name)}"
                config[name] = ConfigValue(from_environment[name], source)
            else:
                config[name] = ConfigValue(setting.default, "default")
            if name in broken:
                problems[name] = broken[name]
    if not isinstance(config["backend"].value, str):
        for name in DECIDED_BY_EXECUTOR:
            problems.pop(name, None)
            config[name] = _not_used(name, config[name].source)
    return config, problems


def _not_used(name: str, source: str) -> ConfigValue:
    """Return the default in place of what was set for whichever backend it would be."""
    _, setting = settings_of(ProgramSettings)[name]
    why = "default" if source == "default" else f"default ({source} is not used beside an executor)"
    return ConfigValue(setting.default, why)
