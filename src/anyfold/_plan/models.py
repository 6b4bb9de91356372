"""Which models are fitted, under which names, and whether the data can be theirs."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sklearn.base import clone

from anyfold import _compat
from anyfold.errors import InvalidInputError

__all__ = ["check_lengths", "cloned", "is_estimator", "name_models", "near"]


def name_models(models: Any) -> dict[str, Any]:
    """Return the models by name, each checked to be an estimator.

    A mapping gives names; one estimator, or a list of them, is named as `sklearn.pipeline.make_pipeline`
    names steps: by the class in lower case, duplicates numbered. A list may also hold (name, estimator)
    pairs.
    """
    if isinstance(models, Mapping):
        pairs = list(models.items())
    elif is_estimator(models) or isinstance(models, type | str | bytes) or not isinstance(models, Iterable):
        pairs = _named([models])
    else:
        items = list(models)
        is_pairs = bool(items) and all(_is_pair(item) for item in items)
        pairs = items if is_pairs else _named(items)
    if not pairs:
        raise InvalidInputError(
            "models is empty: pass an estimator, a list of them, or a mapping name -> estimator"
        )
    for name, model in pairs:
        _check(name, model)
    repeated = sorted(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
    if repeated:
        raise InvalidInputError(f"two models are named {repeated[0]!r}: each needs a name of its own")
    return dict(pairs)


def _named(items: list[Any]) -> list[tuple[str, Any]]:
    bases = [type(item).__name__.lower() for item in items]
    repeated = {base for base, n in Counter(bases).items() if n > 1}
    seen: Counter[str] = Counter()
    pairs = []
    for base, item in zip(bases, items, strict=True):
        seen[base] += 1
        pairs.append((f"{base}-{seen[base]}" if base in repeated else base, item))
    return pairs


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)


def is_estimator(model: Any) -> bool:
    """Return whether something can be fitted and has parameters."""
    return hasattr(model, "fit") and hasattr(model, "get_params") and not isinstance(model, type)


def _check(name: Any, model: Any) -> None:
    if not isinstance(name, str):
        raise InvalidInputError(f"the name of a model must be text, not {name!r} ({type(name).__name__})")
    if is_estimator(model):
        return
    if isinstance(model, type) and hasattr(model, "fit"):
        raise InvalidInputError(
            f"model {name!r} is the class {model.__name__}, not an estimator: write {model.__name__}()"
        )
    missing = [method for method in ("fit", "get_params") if not hasattr(model, method)]
    raise InvalidInputError(
        f"model {name!r} is no estimator: {type(model).__name__} {model!r:.60} "
        f"has no {' and no '.join(missing)}"
    )


def cloned(name: str, model: Any) -> Any:
    """Return an unfitted copy of a model."""
    try:
        return clone(model)
    except Exception as error:
        raise InvalidInputError(f"model {name!r} cannot be cloned: {error}") from error


def check_lengths(**data: Any) -> None:
    """Raise `InvalidInputError` unless all have one entry per sample, and at least one."""
    lengths = {}
    for name, values in data.items():
        if values is None:
            continue
        try:
            lengths[name] = _compat.num_samples(values)
        except TypeError as error:
            raise InvalidInputError(
                f"{name} is {type(values).__name__} {values!r:.60}, which has no samples: {error}"
            ) from error
    if "X" not in lengths:
        raise InvalidInputError("X is None: data with one row per sample is needed")
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        *rest, last = lengths
        raise InvalidInputError(f"{', '.join(rest)} and {last} must have one entry per sample, but {told}")
    if lengths["X"] == 0:
        raise InvalidInputError("X is empty: at least two samples are needed")


def near(name: str, names: Iterable[str]) -> str:
    """Return " (did you mean …?)" for the nearest known name, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
