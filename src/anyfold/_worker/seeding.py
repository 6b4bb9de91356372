"""Seeds the global generators around one task and puts them back."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np

from anyfold._plan.seeds import GLOBAL_NUMPY, GLOBAL_PYTHON, seed_for

__all__ = ["seed_globals", "seeded_globals"]


@contextlib.contextmanager
def seeded_globals(root: int, fold: int) -> Iterator[None]:
    """Seed `random` and `numpy.random` by the identity of a task, and restore them afterwards.

    Not for threads: the global generators belong to the whole process.
    """
    python_state = random.getstate()
    numpy_state = np.random.get_state()
    seed_globals(root, fold)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def seed_globals(root: int, fold: int) -> None:
    """Seed `random` and `numpy.random` by the identity of a task."""
    random.seed(seed_for(root, GLOBAL_PYTHON, fold))
    np.random.seed(seed_for(root, GLOBAL_NUMPY, fold))
