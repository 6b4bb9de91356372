"""Workers kept warm between calls: lent to one run at a time, and only while they would still do the same.

A worker imports the modules of the caller once. It is used again only while the caller has the same working
directory, ``sys.path`` and environment, and while no source of a module that is not installed has changed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import site
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from anyfold._worker.boot import capture_setup
from anyfold.executors._exit import at_interpreter_exit
from anyfold.executors.base import Executor, capabilities_of, isolation_of
from anyfold.executors.registry import find_backend, get_executor, takes_option

__all__ = ["IDLE_SECONDS", "borrow", "is_warm", "let_go", "shutdown"]

IDLE_SECONDS = 300.0
"""How long idle workers are kept."""

END_SECONDS = 1.0
"""How long a run that was interrupted waits for its workers to be gone; afterwards they go by themselves."""

Stamp = tuple[int, int]
"""Time of change and size of a file."""


@dataclass(frozen=True, slots=True)
class _Circumstances:
    """What workers take over from the caller when they start."""

    pid: int
    cwd: str
    sys_path: tuple[str, ...]
    environ: Mapping[str, str]


@dataclass(slots=True, eq=False)
class _Warm:
    """An executor, and what was true when its workers were made."""

    executor: Executor
    name: str
    key: Hashable
    circumstances: _Circumstances | None = None
    """None for one that is used once."""
    made: int = field(default_factory=time.time_ns)
    sources: dict[str, Stamp] = field(default_factory=dict)
    idle_since: float = 0.0

    def still_true(self) -> bool:
        if getattr(self.executor, "closed", False) or self.circumstances != _circumstances():
            return False
        is_current: Callable[[], bool] | None = getattr(self.executor, "is_current", None)
        if is_current is not None and not is_current():
            return False
        # A source that was not known before may have been imported by a worker in an earlier state.
        return all(
            self.sources[file] == stamp if file in self.sources else stamp[0] < self.made
            for file, stamp in _stamps(_own_files()).items()
        )

    def note_sources(self) -> None:
        self.sources.update(_stamps(file for file in _own_files() if file not in self.sources))


class _Shelf:
    """The idle executors of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.idle: list[_Warm] = []
        self.timer: threading.Timer | None = None
        self.emptied = 0
        """How often everything was let go."""


_shelf = _Shelf()


@contextlib.contextmanager
def borrow(
    name: str,
    n_jobs: int | None,
    options: Mapping[str, Any] | None = None,
    start_method: str | None = None,
) -> Iterator[Executor]:
    """Lend an executor to one run; two runs at the same time never share one.

    Parameters
    ----------
    name : str
        A backend.
    n_jobs : int or None
        As for `get_executor`.
    options : mapping of str to object, optional
        Options of the backend.
    start_method : str, optional
        For backends that have this option and are not given it in `options`.

    Yields
    ------
    Executor
        Kept warm after the block, if its workers are processes. A block that ends with an exception may leave
        work behind: then the workers are ended.
    """
    chosen = _chosen(name, options or {}, start_method)
    key = _key(name, n_jobs, chosen)
    warm = _take(key)
    if warm is None:
        executor = get_executor(name, n_jobs, **chosen)
        warm = _Warm(executor, name, key)
        if _worth_keeping(executor):
            warm.circumstances = _circumstances()
            warm.note_sources()
            _at_exit_once()
    emptied = _shelf.emptied
    try:
        yield warm.executor
    except BaseException:
        _discard(warm.executor)
        raise
    if key is None or emptied != _shelf.emptied or not _worth_keeping(warm.executor):
        warm.executor.shutdown()
    else:
        _put_back(warm)


def is_warm(name: str, n_jobs: int | None, options: Mapping[str, Any], start_method: str | None) -> bool:
    """Return whether there are idle workers that `borrow` would lend."""
    key = _key(name, n_jobs, _chosen(name, options, start_method))
    with _shelf.lock:
        return key is not None and any(warm.key == key and warm.still_true() for warm in _shelf.idle)


def let_go(name: str) -> None:
    """Let the idle workers of one backend go; returns when they are gone."""
    _let_go(lambda warm: warm.name == name)


def _let_go(chosen: Callable[[_Warm], bool]) -> None:
    with _shelf.lock:
        gone = [warm for warm in _shelf.idle if chosen(warm)]
        _shelf.idle = [warm for warm in _shelf.idle if warm not in gone]
        if not _shelf.idle:
            _stop_timer()
    for warm in gone:
        warm.executor.shutdown()


def shutdown() -> None:
    """Let all warm workers go, and with them what helps to start them; returns when they are gone.

    Workers that a run is using go when it ends. Executors of your own, `get_executor`'s among them, stay.

    Examples
    --------
    >>> import anyfold as af
    >>> af.shutdown()
    """
    with _shelf.lock:
        _shelf.emptied += 1
        idle, _shelf.idle = _shelf.idle, []
        _stop_timer()
    for warm in idle:
        warm.executor.shutdown(wait=False)
    for warm in idle:
        warm.executor.shutdown()
    start = sys.modules.get("anyfold.executors._start")
    if start is not None:
        start.stop_fork_server()


def _chosen(name: str, options: Mapping[str, Any], start_method: str | None) -> dict[str, Any]:
    chosen = dict(options)
    if start_method is not None and takes_option(name, "start_method"):
        chosen.setdefault("start_method", start_method)
    return chosen


def _key(name: str, n_jobs: int | None, options: Mapping[str, Any]) -> Hashable | None:
    """Return what two calls must agree on to use the same workers; None where that cannot be told."""
    key = (find_backend(name).target, name, n_jobs, tuple(sorted(options.items())))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _worth_keeping(executor: Executor) -> bool:
    if getattr(executor, "closed", False):
        return False
    keep: bool = getattr(executor, "keep_warm", isolation_of(executor) == "process")
    return keep


def _take(key: Hashable | None) -> _Warm | None:
    if key is None:
        return None
    stale = []
    found = None
    with _shelf.lock:
        for warm in [warm for warm in reversed(_shelf.idle) if warm.key == key]:
            _shelf.idle.remove(warm)
            if warm.still_true():
                found = warm
                break
            stale.append(warm)
    for warm in stale:
        warm.executor.shutdown(wait=getattr(warm.executor, "one_at_a_time", False))
    return found


def _put_back(warm: _Warm) -> None:
    warm.note_sources()
    warm.idle_since = time.monotonic()
    with _shelf.lock:
        _shelf.idle.append(warm)
        if _shelf.timer is None:
            _set_timer(IDLE_SECONDS)


def _discard(executor: Executor) -> None:
    # In a thread, where no second Ctrl-C can stop it half-way. A worker that is being started cannot be
    # ended before it is there: that may take longer than anybody should wait who has pressed Ctrl-C.
    ending = threading.Thread(target=_end, args=(executor,), name="anyfold-end")
    ending.start()
    ending.join(END_SECONDS)


def _end(executor: Executor) -> None:
    stopping: Any = executor
    if "stop_running" in capabilities_of(executor):
        with contextlib.suppress(Exception):
            stopping.stop_running()
        executor.shutdown(cancel_futures=True)
    else:
        executor.shutdown(wait=False, cancel_futures=True)


def _set_timer(seconds: float) -> None:
    _shelf.timer = threading.Timer(seconds, _let_idle_go)
    _shelf.timer.daemon = True
    _shelf.timer.name = "anyfold-idle-workers"
    _shelf.timer.start()


def _stop_timer() -> None:
    if _shelf.timer is not None:
        _shelf.timer.cancel()
        _shelf.timer = None


def _let_idle_go() -> None:
    with _shelf.lock:
        oldest = time.monotonic() - IDLE_SECONDS
        gone = [warm for warm in _shelf.idle if warm.idle_since <= oldest]
        _shelf.idle = [warm for warm in _shelf.idle if warm.idle_since > oldest]
        _shelf.timer = None
        if _shelf.idle:
            _set_timer(min(warm.idle_since for warm in _shelf.idle) - oldest)
    for warm in gone:
        warm.executor.shutdown()


@functools.cache
def _at_exit_once() -> None:
    at_interpreter_exit(shutdown)


def _circumstances() -> _Circumstances:
    setup = capture_setup(kill_with_parent_thread=False)
    return _Circumstances(os.getpid(), setup.cwd or "", setup.sys_path, setup.environ)


def _stamps(files: Iterable[str]) -> dict[str, Stamp]:
    stamps: dict[str, Stamp] = {}
    for file in files:
        with contextlib.suppress(OSError):
            status = os.stat(file)  # noqa: PTH116 - called for many files, before every run
            stamps[file] = status.st_mtime_ns, status.st_size
    return stamps


@dataclass(frozen=True, slots=True)
class _Seen:
    """Which modules there were, of thousands, and which of their files are to be looked at."""

    names: list[str]
    ids: list[int]
    own: list[tuple[str, Callable[[], Any], str]]
    """Name, weak reference and file of those that belong to no installed package."""


_seen = _Seen([], [], [])


def _nothing() -> None: ...


def _own_files() -> list[str]:
    """Return the files of the loaded modules that belong to no installed package."""
    global _seen
    modules = dict(sys.modules)
    seen = _seen
    names, ids = list(modules), list(map(id, modules.values()))
    is_seen = seen.names == names and seen.ids == ids
    if not is_seen or any(known() is not modules[name] for name, known, _ in seen.own):
        own: list[tuple[str, Callable[[], Any], str]] = []
        for name, module in modules.items():
            if (file := _own_file(name, module)) is not None:
                try:
                    own.append((name, weakref.ref(module), file))
                except TypeError:  # what is in a module's place may be anything
                    own.append((name, _nothing, file))
        seen = _seen = _Seen(names, ids, own)
    return [file for _, _, file in seen.own]


def _own_file(name: str, module: Any) -> str | None:
    file = getattr(module, "__file__", None)
    if name in ("__main__", "__mp_main__") or not isinstance(file, str) or file.startswith(_installed()):
        return None
    return file


@functools.cache
def _installed() -> tuple[str, ...]:
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(os.path.join(folder, "") for folder in folders if folder)  # noqa: PTH118


def _forget_in_child() -> None:
    global _shelf
    _shelf = _Shelf()  # the workers are the parent's


def _before_fork() -> None:
    _let_go(lambda warm: not getattr(warm.executor, "survives_fork", True))


os.register_at_fork(before=_before_fork, after_in_child=_forget_in_child)
