"""Seeds by identity: what a number depends on, and nothing else.

A seed is a hash of the root seed, the path of a parameter and the fold. It does not depend on the
position or the name of a model, so that adding, renaming or reordering models changes no number.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np

from anyfold._plan.task import REFIT
from anyfold.errors import InvalidInputError

__all__ = ["root_seed", "seed_for", "seed_open_states", "unset_random_states"]

GLOBAL_NUMPY = "numpy.random"
GLOBAL_PYTHON = "random"
NESTED = "run_cv"

_PARAMETER = "random_state"
_MAX_SEED = 2**31 - 1  # what every library in the field accepts as a seed


def seed_for(root: int, path: str, fold: int) -> int:
    """Return the seed of one parameter on one fold, an int in [0, 2**31 - 1)."""
    place = "refit" if fold == REFIT else str(fold)
    digest = blake2b(f"{root}\x1f{path}\x1f{place}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % _MAX_SEED


def unset_random_states(parameters: Mapping[str, Any], root: int, fold: int) -> dict[str, int]:
    """Return a seed for each ``random_state`` among an estimator's deep parameters that is None."""
    return {
        path: seed_for(root, path, fold)
        for path, value in parameters.items()
        if value is None and (path == _PARAMETER or path.endswith(f"__{_PARAMETER}"))
    }


def seed_open_states(estimator: Any, root: int, fold: int) -> Collection[Any]:
    """Give each ``random_state`` of an estimator that is None its seed; return all of its parameters."""
    parameters = estimator.get_params(deep=True)
    if seeds := unset_random_states(parameters, root, fold):
        estimator.set_params(**seeds)
    return list(parameters.values())


def root_seed(random_state: Any) -> int:
    """Turn the ``random_state`` of a run into its root seed; None draws one.

    A `numpy.random.RandomState` or `numpy.random.Generator` is drawn from once, as scikit-learn
    does with such an object.
    """
    match random_state:
        case None:
            return secrets.randbelow(_MAX_SEED)
        case bool():
            pass
        case int() | np.integer() if random_state >= 0:
            return int(random_state)
        case np.random.RandomState():
            return int(random_state.randint(_MAX_SEED))
        case np.random.Generator():
            return int(random_state.integers(_MAX_SEED))
    raise InvalidInputError(
        f"random_state={random_state!r} cannot seed a run: pass a non-negative int, None (a root seed is "
        "drawn and recorded on the result), a numpy RandomState or a numpy Generator"
    )
