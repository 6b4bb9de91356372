"""How much memory there is to take."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

__all__ = ["available_memory", "format_bytes"]


def available_memory(root: Path = Path("/")) -> int:
    """Return how many bytes can be taken without swapping or being killed for it.

    Parameters
    ----------
    root : Path, default=Path("/")
        Where ``proc`` and ``sys`` are found.

    Returns
    -------
    int
        The least of what the kernel reports as available and what each control group (version 1 or 2)
        that this process is in leaves it; half of the physical memory where neither is known.
    """
    limits = [*_meminfo(root), *_control_groups(root)]
    if limits:
        return max(0, min(limits))
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _meminfo(root: Path) -> Iterator[int]:
    text = _read(root / "proc/meminfo") or ""
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _control_groups(root: Path) -> Iterator[int]:
    base = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        group = PurePosixPath(path.lstrip("/"))
        # inside a container the group's own folder may be mounted as the root: then only that exists
        ancestors = (group, *group.parents)
        if not controllers:
            yield from _left_in(base, ancestors, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left_in(base / "memory", ancestors, *names)


def _left_in(
    base: Path, groups: Iterable[PurePosixPath], limit_name: str, usage_name: str, reclaimable_name: str
) -> Iterator[int]:
    for group in groups:
        limit, usage = _read(base / group / limit_name), _read(base / group / usage_name)
        if limit is None or usage is None or not limit.strip().isdigit():
            continue  # no such group, or "max": no limit
        counters = dict(line.split() for line in (_read(base / group / "memory.stat") or "").splitlines())
        yield int(limit) - int(usage) + int(counters.get(reclaimable_name, 0))


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def format_bytes(n: int) -> str:
    """Return a size for people: ``1.5 GB``."""
    size = float(n)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
