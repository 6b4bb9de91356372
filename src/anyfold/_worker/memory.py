"""How much memory a task takes: by the marks that the kernel keeps of a process."""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

__all__ = ["PeakMemory"]

RESET_PEAK = "5"
"""What makes Linux set the peak of the resident memory back to what is resident now; see proc(5)."""

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures a block: by how many bytes the resident memory of this process grew at most.

    The kernel's own high-water mark (``VmHWM``) is set back before the block and read after it, so that
    no peak between two looks is missed. Files that were mapped meanwhile, such as shared data, are taken off:
    what a process reads there it does not own. Before, the C library gives back what it has kept of freed
    memory; what it cannot give back, since something above it is in use, is no growth when it is used again.

    Attributes
    ----------
    nbytes : float
        NaN where the system does not tell.
    """

    def __init__(self) -> None:
        self.nbytes = math.nan
        self._before: Mapping[str, int] | None = None

    def __enter__(self) -> PeakMemory:
        with contextlib.suppress(OSError, KeyError, ValueError):
            _give_back()
            _CLEAR.write_text(RESET_PEAK)
            self._before = _status()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._before is None:
            return
        with contextlib.suppress(OSError, KeyError, ValueError):
            now, before = _status(), self._before
            mapped = sum(now[name] - before[name] for name in ("RssFile", "RssShmem"))
            self.nbytes = float(max(0, now["VmHWM"] - before["VmRSS"] - max(0, mapped)))


def _give_back() -> None:
    with contextlib.suppress(AttributeError):  # of the GNU library only
        _c_library().malloc_trim(0)


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _status() -> dict[str, int]:
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}
    return {name: sizes[name] for name in ("VmHWM", "VmRSS", "RssFile", "RssShmem")}
