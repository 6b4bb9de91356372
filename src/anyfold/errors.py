"""Every error and warning that anyfold raises of its own accord.

One base class, `AnyfoldError`; each error also derives from the built-in that a caller would
catch without knowing anyfold. Arguments go to ``super().__init__`` unchanged, so that every error
survives pickling.

Examples
--------
>>> import anyfold as af
>>> try:
...     af.get_executor("lokki")
... except af.errors.UnknownBackendError as error:
...     print(str(error).partition("?")[0])
there is no backend 'lokki'; did you mean 'loky'
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from signal import SIGTERM

__all__ = [
    "AnyfoldError",
    "AnyfoldWarning",
    "DataChangedWarning",
    "InvalidInputError",
    "InvalidSettingError",
    "JournalError",
    "JournalWarning",
    "MemoryPressureWarning",
    "MissingDependencyError",
    "ModelFailedError",
    "SharedLost",
    "TaskTimeoutError",
    "Terminated",
    "TimeLimitError",
    "UnknownBackendError",
    "UnknownModelError",
    "UnpicklableModelError",
    "UnreadableResultError",
    "UnsupportedFeatureError",
    "WorkerLostError",
    "WorkerMismatchError",
    "WorkerStartError",
    "WorkerTraceback",
]


class AnyfoldError(Exception):
    """Base class of all errors that anyfold raises of its own accord."""


class InvalidInputError(AnyfoldError, ValueError):
    """Data, folds, models, scoring or parameters cannot be used as given."""


class InvalidSettingError(AnyfoldError, ValueError):
    """A setting, from an argument, a context or an ``ANYFOLD_*`` variable, has a bad value."""


class UnknownBackendError(AnyfoldError, LookupError):
    """No backend has that name."""


class UnknownModelError(AnyfoldError, KeyError):
    """The result holds no model of that name."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr of the message


class UnpicklableModelError(AnyfoldError, TypeError):
    """A model, or something that goes with it, cannot be sent to worker processes."""


class ModelFailedError(AnyfoldError, KeyError):
    """The result has no fitted model of that name, since it failed or never ran."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr of the message


class UnreadableResultError(AnyfoldError, RuntimeError):
    """Something that a worker returned cannot be unpickled here."""


class MissingDependencyError(AnyfoldError, ImportError):
    """A backend or a feature needs a package that is not installed."""


class UnsupportedFeatureError(AnyfoldError, NotImplementedError):
    """The backend lacks the capability that was asked for."""


class WorkerLostError(AnyfoldError, BrokenExecutor):
    """A worker ended while it was running a task.

    Attributes
    ----------
    pid : int or None
        Process id of the worker that is known to have ended; None where the pool reports only
        that some worker did.
    exitcode : int or None
        Exit status of that worker, negative for the number of the signal that ended it.
    incident : object or None
        Equal on all futures that were lost to the same event.
    """

    def __init__(
        self,
        message: str = "a worker ended unexpectedly",
        pid: int | None = None,
        exitcode: int | None = None,
        incident: object = None,
    ) -> None:
        super().__init__(message, pid, exitcode, incident)
        self.pid = pid
        self.exitcode = exitcode
        self.incident = incident

    def __str__(self) -> str:
        return str(self.args[0])


class WorkerStartError(WorkerLostError):
    """No worker can be started."""


class WorkerMismatchError(AnyfoldError, RuntimeError):
    """A worker runs other versions than the caller, so that its numbers could differ."""


class SharedLost(AnyfoldError, LookupError):
    """A shared object can no longer be read."""


class TaskTimeoutError(AnyfoldError, TimeoutError):
    """A task ran longer than it was allowed to."""


class TimeLimitError(AnyfoldError, TimeoutError):
    """The time of a run was over before it could return what was asked for.

    Attributes
    ----------
    result : object
        What had finished; for `parallel_map` values by the index of the item. It is not pickled.
    """

    result: object = None

    def __reduce__(self) -> tuple[type[TimeLimitError], tuple[object, ...]]:
        return type(self), self.args


class Terminated(KeyboardInterrupt, SystemExit):
    """SIGTERM came during a run: what Ctrl-C does, and the end of the program if nobody catches it.

    Attributes
    ----------
    result : object
        What had finished, where the call has a place for it.
    code : int
        Exit status of the program, 143, as of one that the signal has ended.
    """

    result: object = None

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.code = 128 + SIGTERM


class WorkerTraceback(AnyfoldError):
    """The traceback of a worker as text; the ``__cause__`` of an exception that came from it."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}" if self.args else ""


class JournalError(AnyfoldError, OSError):
    """The journal of finished work cannot be opened, or is none."""


class AnyfoldWarning(UserWarning):
    """Base class of all warnings that anyfold issues of its own accord."""


class DataChangedWarning(AnyfoldWarning):
    """The data was changed by its owner after it was given to `Folds`."""


class MemoryPressureWarning(AnyfoldWarning):
    """What workers would like to keep in memory does not fit."""


class JournalWarning(AnyfoldWarning):
    """The journal could not be written to any more; the run goes on without it."""
