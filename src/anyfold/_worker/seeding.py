"""Seeds the global generators for each task and puts them back when all are done."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np

from anyfold._plan.seeds import GLOBAL_NUMPY, GLOBAL_PYTHON, seed_for

__all__ = ["kept_globals", "seed_globals"]


@contextlib.contextmanager
def kept_globals() -> Iterator[None]:
    """Put `random` and `numpy.random` back afterwards as they were.

    That takes a tenth of a millisecond, so that it is done around several tasks. Not for threads: the global
    generators belong to the whole process.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def seed_globals(root: int, fold: int) -> None:
    """Seed `random` and `numpy.random` by the identity of a task."""
    random.seed(seed_for(root, GLOBAL_PYTHON, fold))
    np.random.seed(seed_for(root, GLOBAL_NUMPY, fold))
