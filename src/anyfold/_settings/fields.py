"""Which settings there are: the one place where they are written down.

Signatures and docstrings of the front doors, names of environment variables and the validation are all
derived from `Settings` and `ProgramSettings`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, get_args, get_type_hints

from anyfold.executors.base import Executor

__all__ = ["ProgramSettings", "Resolved", "Setting", "Settings", "StartMethod", "settings_of", "variable_of"]

StartMethod = Literal["fork", "forkserver", "spawn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is known about a setting besides its type.

    Attributes
    ----------
    help : str
        What it does, in whole sentences, units included.
    takes : str
        The values that are allowed; completes the sentence "n_jobs takes …".
    default : object
        The value where none is given anywhere.
    none : str or None
        What None means where it can be given; None where giving None is giving nothing.
    limits : mapping of str to object
        What numbers must keep to, in the words of ``pydantic.Field``.
    variable : bool
        Whether there is an environment variable for it.
    """

    help: str
    takes: str
    default: Any = None
    none: str | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    variable: bool = True


class Settings(TypedDict, total=False):
    """How to run; the ``**settings`` of every front door."""

    backend: Annotated[
        str | Executor | None,
        Setting(
            default="auto",
            takes="the name of a backend, or an executor with submit and shutdown",
            help="Where the work runs: the name of a backend, ``'auto'``, or a PEP 3148 executor, which "
            "stays yours to shut down. An executor has its own workers: ``n_jobs`` and ``backend_options`` "
            "as arguments beside it are an error, from elsewhere they are not used.",
        ),
    ]
    n_jobs: Annotated[
        int | None,
        Setting(
            takes="a non-zero integer (-1 = all cores)",
            help="Number of workers. The default, like -1, is every core that this process may use; -2 is "
            "all but one, and so on.",
        ),
    ]
    inner_threads: Annotated[
        int | None,
        Setting(
            default=1,
            takes="an integer of at least 1",
            limits={"ge": 1},
            help="Threads that BLAS, OpenMP and a model's own ``n_jobs`` may use inside one task.",
        ),
    ]
    resources: Annotated[
        Mapping[str, Mapping[str, float]] | None,
        Setting(
            none="nothing particular",
            takes="a mapping from models to mappings from resources to amounts of at least 0",
            variable=False,
            help="What each task of a model needs, as ``{'net': {'gpu': 1}}``, on a backend that places "
            "tasks by resources.",
        ),
    ]
    timeout: Annotated[
        float | None,
        Setting(
            none="no limit",
            takes="a finite number of seconds greater than 0",
            limits={"gt": 0, "allow_inf_nan": False},
            help="Seconds that one task may take. One that takes longer is stopped and recorded as a "
            "failure.",
        ),
    ]
    time_limit: Annotated[
        float | None,
        Setting(
            none="no limit",
            takes="a finite number of seconds greater than 0",
            limits={"gt": 0, "allow_inf_nan": False},
            help="Seconds that the whole run may take.",
        ),
    ]
    retries: Annotated[
        int | None,
        Setting(
            default=2,
            takes="an integer of at least 0",
            limits={"ge": 0},
            help="How often a task is started again when its worker was lost. Errors of a model are never "
            "retried.",
        ),
    ]
    journal: Annotated[
        str | PathLike[str] | None,
        Setting(
            none="no journal",
            takes="a path",
            help="Path of the record of finished work, so that a run that is started again does only what is "
            "missing.",
        ),
    ]
    progress: Annotated[
        bool | None,
        Setting(
            none="where somebody is watching: in a terminal or a notebook",
            takes="True or False",
            help="Whether progress is shown.",
        ),
    ]
    callbacks: Annotated[
        Sequence[Callable[..., object]] | None,
        Setting(
            default=(),
            takes="a sequence of callables",
            variable=False,
            help="Functions that are called with each event of the run.",
        ),
    ]
    backend_options: Annotated[
        Mapping[str, Any] | None,
        Setting(
            default={},
            takes="a mapping from names to values (in the environment a JSON object)",
            help="Options that are handed to the backend as they are.",
        ),
    ]


class ProgramSettings(Settings, total=False):
    """`Settings`, and what concerns the whole program rather than one run."""

    random_state: Annotated[
        int | None,
        Setting(
            none="each run draws a seed and records it",
            takes="an integer from 0 to 4294967295",
            limits={"ge": 0, "le": 2**32 - 1},
            help="Root seed of runs that are given no ``random_state``.",
        ),
    ]
    temp_dir: Annotated[
        str | PathLike[str] | None,
        Setting(
            none="the system's own",
            takes="an existing folder that can be written to",
            help="Folder for shared data that do not fit into shared memory.",
        ),
    ]
    start_method: Annotated[
        StartMethod | None,
        Setting(
            none="the backend's own choice",
            takes="'fork', 'forkserver' or 'spawn'",
            help="How worker processes are started.",
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The value of every setting for one call, and where each came from.

    Attributes
    ----------
    sources : mapping of str to str
        For each setting ``"argument"``, ``"config_context"``, ``"set_config"``, ``"environment variable
        ANYFOLD_…"`` or ``"default"``.
    """

    backend: str | Executor
    n_jobs: int | None
    inner_threads: int
    resources: Mapping[str, Mapping[str, float]] | None
    timeout: float | None
    time_limit: float | None
    retries: int
    journal: Path | None
    progress: bool | None
    callbacks: tuple[Callable[..., object], ...]
    backend_options: Mapping[str, Any]
    random_state: int | None
    temp_dir: Path | None
    start_method: StartMethod | None
    sources: Mapping[str, str] = field(compare=False)


@functools.cache
def settings_of(declaration: type) -> Mapping[str, tuple[Any, Setting]]:
    """Return the type and the `Setting` of each field of `Settings` or `ProgramSettings`, by name."""
    hints = get_type_hints(declaration, include_extras=True)
    return {name: (get_args(hint)[0], get_args(hint)[1]) for name, hint in hints.items()}


def variable_of(name: str) -> str | None:
    """Return the environment variable of a setting, None where it has none."""
    _, setting = settings_of(ProgramSettings)[name]
    return f"ANYFOLD_{name.upper()}" if setting.variable else None
