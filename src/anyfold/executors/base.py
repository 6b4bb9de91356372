"""What an executor is: PEP 3148, and optional abilities that it declares.

The engine needs ``submit`` and ``shutdown`` with real `concurrent.futures.Future` objects. Everything
else is optional: an executor names what it can do in ``capabilities``, and each ability is one small
Protocol below. Asking for one that is not declared raises `UnsupportedFeatureError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Literal, ParamSpec, Protocol, Self, TypeVar, runtime_checkable

from anyfold.errors import UnsupportedFeatureError

__all__ = [
    "CAPABILITIES",
    "Capability",
    "Executor",
    "Isolation",
    "Mailbox",
    "Shared",
    "SupportsMailbox",
    "SupportsResources",
    "SupportsShare",
    "SupportsStopRunning",
    "capabilities_of",
    "isolation_of",
    "require_capability",
]

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Isolation = Literal["process", "thread", "none"]
"""Whether tasks run in processes of their own, in threads of the caller, or in the caller itself."""

Capability = Literal["healing", "share", "stop_running", "mailbox", "resources"]
CAPABILITIES: Mapping[Capability, str] = {
    "healing": "after a lost worker the lost futures raise WorkerLostError and submit works again",
    "share": "publishes read-only objects by itself (share, submit_shared)",
    "stop_running": "stops running work at once and stays usable",
    "mailbox": "provides a channel of its own from workers to the caller (open_mailbox)",
    "resources": "places tasks by the resources that they ask for",
}


@runtime_checkable
class Executor(Protocol):
    """A PEP 3148 executor; see the module's docstring for what may be added to it.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> from anyfold.executors import Executor
    >>> issubclass(ThreadPoolExecutor, Executor)
    True
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule ``fn(*args, **kwargs)`` and return a `concurrent.futures.Future`."""
        ...

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the workers go; with ``wait`` return only when they are gone."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool | None: ...


class Shared(Protocol[T_co]):
    """A read-only object that is published once and that any worker can read."""

    def get(self) -> T_co:
        """Return the object; raises `SharedLost` when it can no longer be read."""
        ...

    def release(self) -> None:
        """Give up the published copy; called on the caller's side only."""
        ...


class SupportsShare(Protocol):
    """Publishes objects by means of its own; an executor without it gets anyfold's local files."""

    def share(self, obj: T) -> Shared[T]:
        """Publish a read-only object once, from the caller."""
        ...

    def submit_shared(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[Shared[T]]:
        """Schedule a call whose result stays with the workers, owned by the caller."""
        ...


class SupportsStopRunning(Protocol):
    """Ends running work at once and can be used again afterwards."""

    def stop_running(self) -> None:
        """Stop what runs now; the futures concerned raise `WorkerLostError` or are cancelled."""
        ...


class SupportsResources(Protocol):
    """Places tasks by the resources that they ask for."""

    def submit_with_resources(
        self, resources: Mapping[str, float], fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Like ``submit``, on a worker that has these resources to give."""
        ...


class Mailbox(Protocol):
    """A channel from workers to the caller."""

    @property
    def address(self) -> Any:
        """What a worker needs to send; picklable and small."""
        ...

    def drain(self) -> None:
        """Return when everything that was sent before a future resolved has been delivered."""
        ...

    def close(self) -> None:
        """Stop listening and leave nothing behind."""
        ...


class SupportsMailbox(Protocol):
    """Has a channel of its own for what workers report while they run."""

    def open_mailbox(self, deliver: Callable[[Any], None]) -> Mailbox:
        """Open a channel whose messages are passed to ``deliver``."""
        ...


def capabilities_of(executor: Executor) -> frozenset[str]:
    """Return what an executor declares; a bare PEP 3148 executor declares nothing."""
    return frozenset(getattr(executor, "capabilities", ()))


def isolation_of(executor: Executor) -> Isolation:
    """Return where an executor runs its tasks; ``"process"`` unless it says otherwise."""
    isolation: Isolation = getattr(executor, "isolation", "process")
    return isolation


def require_capability(executor: Executor, capability: Capability, needed_for: str) -> None:
    """Raise `UnsupportedFeatureError` unless the executor declares the capability."""
    if capability not in capabilities_of(executor):
        raise UnsupportedFeatureError(
            f"{needed_for} needs an executor that {CAPABILITIES[capability]}; "
            f"{type(executor).__name__} does not declare {capability!r}"
        )
