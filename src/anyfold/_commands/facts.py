"""What the doctor looks at: versions, backends, cores, settings, storage. It judges nothing."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from anyfold.errors import AnyfoldWarning

__all__ = [
    "Backend",
    "Cores",
    "SettingRow",
    "Storage",
    "find_backends",
    "find_cores",
    "find_settings",
    "find_storage",
    "find_versions",
]

PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "joblib",
    "loky",
    "cloudpickle",
    "threadpoolctl",
    "pandas",
    "polars",
    "rich",
    "matplotlib",
    "ray",
    "distributed",
)

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Backend:
    """A backend by name, and whether it can be used here."""

    name: str
    available: bool
    detail: str
    origin: str


@dataclass(frozen=True, slots=True)
class Cores:
    """How many cores may be used, and what limits them."""

    limits: Mapping[str, float | None]
    """Each limit by name; None where it does not apply."""
    usable: int | None
    """None where ``LOKY_MAX_CPU_COUNT`` is no number."""


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting, its value and where that came from."""

    name: str
    value: Any
    source: str
    variable: str | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Storage:
    """A place for data that workers share; sizes in bytes."""

    place: Literal["memory", "temporary files", "/dev/shm"]
    use: str
    path: str | None
    """None where it is no folder."""
    free: int | None
    writable: bool


def find_versions() -> dict[str, str]:
    """Return the versions that decide about numbers, the linear algebra kernel included."""
    from anyfold._mail.contact import WorkerInfo
    from anyfold._version import __version__

    versions = {
        "anyfold": __version__,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    versions["BLAS"] = WorkerInfo.of_this_process().versions["blas"]
    versions["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    return versions


def find_backends() -> list[Backend]:
    """Return all backends that are known by name."""
    from anyfold.executors.registry import available_backends, find_backend

    return [
        Backend(
            each.name,
            each.available,
            each.detail or _versions_of(find_backend(each.name).requires, each.name, each.origin),
            each.origin,
        )
        for each in available_backends()
    ]


def _versions_of(packages: Iterable[str], name: str, origin: str) -> str:
    """Return what a backend is made of, with versions: packages that it needs, or where it comes from."""
    told = []
    for package in [*packages] or [name if origin == "anyfold" else origin]:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
            told.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join(told) or "standard library" * (origin == "anyfold")


def find_cores() -> Cores:
    """Return the limits on cores, and what `joblib.cpu_count` makes of them."""
    import joblib

    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    limit = os.environ.get("LOKY_MAX_CPU_COUNT")
    try:
        usable = int(joblib.cpu_count())
    except ValueError:
        usable = None
    return Cores(
        {
            "cores of the machine": os.cpu_count(),
            "CPU affinity": affinity,
            "control group quota": _cgroup_quota(),
            "LOKY_MAX_CPU_COUNT": None if usable is None or not limit else int(limit),
        },
        usable,
    )


def find_settings() -> list[SettingRow]:
    """Return every setting, also those whose variables cannot be used."""
    from anyfold._settings.fields import variable_of
    from anyfold._settings.levels import look_up

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AnyfoldWarning)  # unknown variables are problems of their own
        config, broken = look_up({})
    rows = []
    for name, (value, source) in config.items():
        variable = variable_of(name)
        if name in broken and variable:
            value, source = os.environ.get(variable), f"environment variable {variable}, not valid"
        if isinstance(value, Path):
            value = str(value)
        rows.append(SettingRow(name, value, source, variable, broken.get(name)))
    return rows


def find_storage(temp_dir: str | os.PathLike[str] | None) -> list[Storage]:
    """Return the places that are used here, in the order in which they are tried."""
    from anyfold._data.memory import available_memory, format_bytes
    from anyfold._data.storage import MEMORY_SHARE

    places = []
    free = available_memory()
    largest = f"objects up to {format_bytes(int(MEMORY_SHARE * free))}"
    if hasattr(os, "memfd_create"):
        places.append(Storage("memory", largest, None, free, writable=_gives_memory()))
    try:
        folder = os.fspath(temp_dir) if temp_dir is not None else tempfile.gettempdir()
    except FileNotFoundError:
        places.append(Storage("temporary files", "larger objects", None, None, writable=False))
    else:
        places.append(_folder("temporary files", "larger objects", folder))
    if Path("/dev/shm").is_dir():
        places.append(_folder("/dev/shm", "semaphores of process pools, Ray's objects", "/dev/shm"))
    return places


def _folder(place: Literal["temporary files", "/dev/shm"], use: str, path: str) -> Storage:
    try:
        free = shutil.disk_usage(path).free
        with tempfile.TemporaryFile(dir=path):
            return Storage(place, use, path, free, writable=True)
    except OSError:
        return Storage(place, use, path, None, writable=False)


def _gives_memory() -> bool:
    try:
        os.close(os.memfd_create("anyfold"))
    except OSError:
        return False
    return True


def _cgroup_quota() -> float | None:
    """Return the cores that the control group may use, from either version of its files."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (CGROUP / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (CGROUP / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota == "max" or int(quota) <= 0 or int(period) <= 0:
        return None
    return int(quota) / int(period)
