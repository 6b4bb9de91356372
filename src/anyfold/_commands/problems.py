"""What the doctor makes of the facts: what will fail, and what may surprise."""

from __future__ import annotations

import difflib
import multiprocessing
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from anyfold._commands.facts import Backend, Cores, SettingRow, Storage

__all__ = ["Problem", "find_problems"]

Level = Literal["error", "warning"]

SMALL = {"memory": 256 * 2**20, "temporary files": 2**30, "/dev/shm": 32 * 2**20}
"""Bytes below which a place is too small to do its work; containers often get 64 MiB of /dev/shm."""

INSTEAD = {
    "memory": "Data are shared through temporary files, which is slower.",
    "temporary files": "Data that do not fit into memory cannot be shared. Set ANYFOLD_TEMP_DIR to a folder "
    "of this machine that can be written to and has room.",
    "/dev/shm": "Process pools and Ray may not start. In a container give it more, as with docker run "
    "--shm-size.",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """An error makes runs fail; a warning tells of what may be slow or surprising."""

    level: Level
    message: str


def find_problems(
    backends: Sequence[Backend],
    cores: Cores,
    settings: Sequence[SettingRow],
    storage: Sequence[Storage],
) -> list[Problem]:
    """Return everything that is wrong, errors first."""
    from anyfold._worker.execute import inside_worker

    valid = {row.name: row.value for row in settings if row.problem is None}
    found = [
        *_problems_of_variables(settings),
        *_problems_of_backend(valid.get("backend"), backends),
        *_problems_of_threads(valid, cores),
        *_problems_of_storage(storage),
    ]
    if inside_worker() or multiprocessing.parent_process() is not None:
        message = "This process is a worker of another one; runs inside a task are serial by default."
        found.append(Problem("warning", message))
    return sorted(found, key=lambda problem: problem.level)


def _problems_of_variables(settings: Sequence[SettingRow]) -> Iterator[Problem]:
    from anyfold._settings.environment import unknown_variables

    for row in settings:
        if row.problem is not None:
            yield Problem("error", row.problem)
    for message in unknown_variables().values():
        yield Problem("warning", message)


def _problems_of_backend(name: Any, backends: Sequence[Backend]) -> Iterator[Problem]:
    from anyfold.executors.registry import AUTO

    if not isinstance(name, str) or name == AUTO:  # an executor, or a variable that is a problem already
        return
    known: dict[str, Backend] = {}
    for backend in backends:
        known.setdefault(backend.name, backend)  # a name belongs to the first that has it
    if name not in known:
        names = sorted([*known, AUTO])
        near = difflib.get_close_matches(name, names)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known are {', '.join(names)}."
        yield Problem("error", f"There is no backend {name!r}; {hint}")
    elif not known[name].available:
        yield Problem("error", f"The backend {name!r} that is set cannot be used: {known[name].detail}")


def _problems_of_threads(settings: Mapping[str, Any], cores: Cores) -> Iterator[Problem]:
    from anyfold._worker.threads import VARIABLES
    from anyfold.settings import effective_n_jobs

    if cores.usable is None:
        yield Problem(
            "error",
            f"LOKY_MAX_CPU_COUNT={os.environ.get('LOKY_MAX_CPU_COUNT')!r} is not a number: cores cannot be "
            "counted. Unset it or set it to an integer of at least 1.",
        )
        return
    for variable in VARIABLES:
        value = os.environ.get(variable)
        if not value:
            continue
        # OpenMP takes one number for each level of nesting.
        if not re.fullmatch(r"\s*[1-9]\d*\s*(,\s*[1-9]\d*\s*)*", value):
            yield Problem(
                "warning",
                f"{variable}={value!r} is not a number of threads of at least 1; libraries may ignore it or "
                "misread it. Unset it: inside tasks inner_threads sets the threads.",
            )
        elif (threads := int(value.split(",")[0])) > cores.usable:
            yield Problem(
                "warning",
                f"{variable}={threads} is more than the {cores.usable} cores that may be used. Inside tasks "
                "inner_threads applies, outside of them this slows things down.",
            )
    inner_threads = settings.get("inner_threads", 1)
    workers = effective_n_jobs(settings.get("n_jobs"))
    if inner_threads > 1 and settings.get("start_method") == "fork":
        yield Problem(
            "error",
            f"start_method='fork' with inner_threads={inner_threads} is refused: OpenMP hangs in forked "
            "processes. Set start_method to 'forkserver' or 'spawn', or inner_threads to 1.",
        )
    if inner_threads * workers > cores.usable:
        yield Problem(
            "warning",
            f"{workers} workers with inner_threads={inner_threads} use more than the {cores.usable} cores "
            "that may be used. Lower n_jobs or inner_threads.",
        )


def _problems_of_storage(storage: Sequence[Storage]) -> Iterator[Problem]:
    from anyfold._data.memory import format_bytes

    for each in storage:
        name = each.place if each.path in (None, each.place) else f"{each.path} ({each.place})"
        if not each.writable:
            level: Level = "error" if each.place == "temporary files" else "warning"
            yield Problem(level, f"{name}: cannot be written to. {INSTEAD[each.place]}")
        elif each.free is not None and each.free < SMALL[each.place]:
            yield Problem(
                "warning", f"{name}: only {format_bytes(each.free)} are free. {INSTEAD[each.place]}"
            )
