"""What fitted models are asked: by which method, for which rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from anyfold import _compat
from anyfold._plan.models import near
from anyfold.errors import InvalidInputError

__all__ = ["check_columns", "check_method", "count_rows"]


def check_method(name: str, model: Any, method: str) -> Callable[[Any], Any]:
    """Return a method of a model."""
    try:
        call = getattr(model, method)
    except AttributeError as error:
        methods = [each for each in dir(type(model)) if not each.startswith("_")]
        raise InvalidInputError(
            f"model {name!r} ({type(model).__name__}) has no method {method!r}{near(method, methods)}: "
            f"{error}"
        ) from error
    if not callable(call):
        raise InvalidInputError(f"{method!r} of model {name!r} ({type(model).__name__}) is no method")
    return call  # type: ignore[no-any-return]


def count_rows(X: Any) -> int:
    """Return how many rows there are, at least one."""
    try:
        n_rows = _compat.num_samples(X)
    except TypeError as error:
        raise InvalidInputError(
            f"X is {type(X).__name__} {X!r:.60}, which has no samples: {error}"
        ) from error
    if n_rows == 0:
        raise InvalidInputError("X is empty: there is nothing to predict for")
    return n_rows


def check_columns(columns: Any, models: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that each model is given, for those that are not given all."""
    if columns is None:
        return {}
    if not isinstance(columns, Mapping):
        raise InvalidInputError(
            f"columns is {type(columns).__name__}, not a mapping from names of models to columns"
        )
    for name in columns:
        if name not in models:
            raise InvalidInputError(
                f"columns names {name!r}, which is no model{near(str(name), models)}: "
                f"the models are {list(models)}"
            )
    return {name: _plain(given) for name, given in columns.items() if given is not None}


def _plain(columns: Any) -> Any:
    """Return columns as scikit-learn takes them: an index of pandas names them too."""
    return columns.tolist() if type(columns).__module__.partition(".")[0] == "pandas" else columns
