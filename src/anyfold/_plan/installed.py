"""Which code is installed, and in which version: what need not be looked into.

Installed is what belongs to Python or to a distribution that was put where it is by an installer.
Not installed, so that its code has to be looked at: scripts, notebooks, modules on ``PYTHONPATH``,
editable installations, and distributions made from a local folder, whose version stays as it is while
the folder changes.
"""

from __future__ import annotations

import json
import platform
import site
import sys
import sysconfig
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

from anyfold._version import __version__

__all__ = ["global_name", "installed_version"]


def installed_version(module: str) -> str | None:
    """Return distribution and version that a module comes from; None where it is not installed."""
    top = module.partition(".")[0]
    if top == "anyfold":
        return f"anyfold {__version__}"
    return _version_at(top, _location(module))


def global_name(obj: Any) -> tuple[str, str, str] | None:
    """Return module, qualified name and version of an installed class or function.

    None where the name does not lead to this very object, or leads to something that is not installed.
    """
    module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not leads_to(module, name, obj):
        return None
    if isinstance(obj, FunctionType) and installed_version(str(obj.__globals__.get("__name__"))) is None:
        return None  # it stands in for an installed one and calls itself so
    version = installed_version(module)
    return None if version is None else (module, name, version)


def leads_to(module: str, name: str, obj: Any) -> bool:
    """Return whether a qualified name in a module is the name of this very object."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            return False
    return found is obj


def _location(module: str) -> str | None:
    """Return the file or folder of a module; None for what is compiled into the interpreter."""
    loaded = sys.modules.get(module)
    spec = getattr(loaded, "__spec__", None)
    if loaded is None:
        try:
            spec = find_spec(module.partition(".")[0])  # a top-level name: looking for it imports nothing
        except (ImportError, ValueError):
            spec = None
    file = getattr(loaded, "__file__", None) or getattr(spec, "origin", None)
    if file not in (None, "built-in", "frozen"):
        return str(file)
    folders = getattr(loaded, "__path__", None) or getattr(spec, "submodule_search_locations", None)
    return str(next(iter(folders))) if folders else None


@cache
def _version_at(top: str, location: str | None) -> str | None:
    python = f"python {platform.python_version()}"
    if location is None:
        return python if top in sys.stdlib_module_names else None
    path = Path(location).resolve()
    in_site = any(path.is_relative_to(folder) for folder in _site_folders())
    if top in sys.stdlib_module_names and not in_site:
        return python if any(path.is_relative_to(folder) for folder in _library_folders()) else None
    versions = [_version_of(owner, path, in_site) for owner in _owners(top)]
    known = sorted(version for version in versions if version is not None)
    return ", ".join(known) if known and len(known) == len(versions) else None


def _version_of(owner: Distribution, path: Path, in_site: bool) -> str | None:
    if not path.is_relative_to(Path(str(owner.locate_file(""))).resolve()):
        return None  # an editable installation: its files are elsewhere
    if not in_site and owner.read_text("RECORD") is None:
        return None  # metadata beside sources, which no installer put there
    origin = owner.read_text("direct_url.json")
    if origin is None:
        return f"{owner.name} {owner.version}"
    told = json.loads(origin)
    if "dir_info" in told:
        return None
    return f"{owner.name} {owner.version} {json.dumps(told, sort_keys=True)}"


def _owners(top: str) -> list[Distribution]:
    found = []
    for name in sorted(set(_names_of_owners().get(top, ()))):
        try:
            found.append(distribution(name))
        except PackageNotFoundError:
            return []
    return found


@cache
def _names_of_owners() -> dict[str, list[str]]:
    return dict(packages_distributions())


@cache
def _site_folders() -> tuple[Path, ...]:
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    return tuple(Path(path).resolve() for path in sorted({*paths, site.getusersitepackages()}))


@cache
def _library_folders() -> tuple[Path, ...]:
    paths = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    return tuple(Path(path).resolve() for path in sorted(paths))
