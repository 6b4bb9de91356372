"""What of a model cannot be pickled, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anyfold._data.serialize import serialize

__all__ = ["culprit_among", "culprit_in_model", "culprit_in_models"]


def culprit_among(values: Mapping[str, Any]) -> str | None:
    """Return the name of a value that cannot be pickled, the innermost where names are nested by ``__``.

    Examples
    --------
    >>> culprit_among({"rf__source": (i for i in range(3)), "rf": [1], "C": 1.0})
    'rf__source'
    """
    bad = [name for name, value in values.items() if not _can_be_pickled(value)]
    return max(bad, key=lambda name: name.count("__"), default=None)


def culprit_in_models(models: Mapping[str, Any]) -> str | None:
    """Say what of some models, or of what goes with them, cannot be pickled; None where all can.

    Parameters
    ----------
    models : mapping of str to object
        With attributes ``estimator``, ``scorer``, ``fit_params`` and ``score_params``.
    """
    for name, plan in models.items():
        estimator = getattr(plan, "estimator", plan)
        if (part := culprit_in_model(name, estimator)) is not None:
            return part
        if not _can_be_pickled(getattr(plan, "scorer", None)):
            return f"the scorer of model {name!r}"
        for kind in ("fit_params", "score_params"):
            if (param := culprit_among(getattr(plan, kind, None) or {})) is not None:
                return f"params[{param!r}]"
    return None


def culprit_in_model(name: str, estimator: Any) -> str | None:
    """Say what of one model cannot be pickled; None where all can."""
    return None if _can_be_pickled(estimator) else f"{_part_of(estimator)} of model {name!r}"


def _part_of(estimator: Any) -> str:
    if hasattr(estimator, "get_params"):
        parameters = estimator.get_params(deep=True)
        if (name := culprit_among(parameters)) is not None:
            return f"parameter {name!r}, a {type(parameters[name]).__name__},"
    if (name := culprit_among(getattr(estimator, "__dict__", {}))) is not None:
        return f"attribute {name!r}, a {type(vars(estimator)[name]).__name__},"
    return f"the class {type(estimator).__name__}"


def _can_be_pickled(value: Any) -> bool:
    try:
        serialize(value)
    except Exception:
        return False
    return True
