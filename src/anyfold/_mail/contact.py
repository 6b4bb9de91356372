"""What a worker says of itself at first contact: everything that could change a number."""

from __future__ import annotations

import os
import platform
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

__all__ = ["WorkerInfo"]

PACKAGES = ("numpy", "scipy", "sklearn")


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Who a worker is and which versions compute there."""

    host: str
    pid: int
    versions: Mapping[str, str]
    """Python, the numerical packages and the kernel of the linear algebra library, by name."""

    @staticmethod
    def of_this_process() -> WorkerInfo:
        return WorkerInfo(socket.gethostname(), os.getpid(), _versions(os.getpid()))

    def differences(self, other: WorkerInfo) -> list[str]:
        """Say what differs from another process in a way that could change a number."""
        names = sorted(self.versions.keys() | other.versions.keys())
        return [
            f"{name} is {self.versions.get(name, 'missing')} on the worker"
            f" and {other.versions.get(name, 'missing')} here"
            for name in names
            if self.versions.get(name) != other.versions.get(name)
        ]


@cache
def _versions(pid: int) -> Mapping[str, str]:
    # The pid is the key of the cache: a forked worker may sit on a kernel chosen anew.
    import scipy.linalg  # noqa: F401  (numpy's and scipy's linear algebra must be loaded to be asked)
    import sklearn  # noqa: F401
    from threadpoolctl import threadpool_info

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        versions[name] = str(getattr(sys.modules.get(name), "__version__", "missing"))
    versions["blas"] = ", ".join(_kernels(threadpool_info())) or "none"
    return versions


def _kernels(libraries: list[dict[str, str]]) -> list[str]:
    # The libraries that numpy and scipy bring along; another package may have loaded more.
    linear_algebra = [library for library in libraries if library["user_api"] == "blas"]
    bundled = [library for library in linear_algebra if re.search("numpy|scipy", library["filepath"])]
    return sorted(
        {
            f"{library['internal_api']} {library.get('version')} {library.get('architecture', '')}".strip()
            for library in bundled or linear_algebra
        }
    )
