"""How a name that is not in a result is answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from anyfold.errors import InvalidInputError, UnknownModelError

__all__ = ["check_model", "one_of", "unknown_name"]


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Say that a name is not known, with those that are near it and otherwise all there are.

    Examples
    --------
    >>> unknown_name("model", "rff", ["rf", "logit"])
    "no model is named 'rff'; did you mean 'rf'?"
    >>> unknown_name("metric", "f1", ["accuracy", "roc_auc"])
    "no metric is named 'f1'; there are: 'accuracy', 'roc_auc'"
    """
    known = list(known)
    near = get_close_matches(str(name), known, n=3, cutoff=0.5)
    if near:
        answer = f"did you mean {' or '.join(map(repr, near))}?"
    elif known:
        shown = ", ".join(map(repr, known[:20])) + (", …" if len(known) > 20 else "")
        answer = f"there are: {shown}"
    else:
        answer = "there are none"
    return f"no {kind} is named {name!r}; {answer}"


def check_model(name: str, models: Sequence[str]) -> None:
    """Raise `UnknownModelError` unless there is a model of that name."""
    if name not in models:
        raise UnknownModelError(unknown_name("model", name, models))


def one_of(kind: str, name: str | None, known: Sequence[str]) -> str:
    """Return a name that is known, the first of all for None; raise `InvalidInputError` for any other.

    Examples
    --------
    >>> one_of("metric", None, ["accuracy", "roc_auc"])
    'accuracy'
    """
    if name is None:
        return known[0]
    if name not in known:
        raise InvalidInputError(unknown_name(kind, name, known))
    return name
