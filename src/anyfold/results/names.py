"""How long names are shortened and stay apart."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["elided", "shortened"]


def elided(name: str, width: int) -> str:
    """Shorten a name in its middle.

    Examples
    --------
    >>> elided("pipeline-standardscaler-logisticregression", 21)
    'pipeline-s…regression'
    """
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Shorten names so that they still differ.

    Each is shortened in its middle. Those that would become the same are shortened at their ends
    instead, by what they have in common; where that does not tell them apart they stay as they are.

    Examples
    --------
    >>> shortened(["rf", "pipeline-scaler-a-logisticregression", "pipeline-scaler-b-logisticregression"], 20)
    ['rf', '…scaler-a-logisticr…', '…scaler-b-logisticr…']
    """
    short = {name: elided(name, width) for name in names}
    for label in set(short.values()):
        same = [name for name in short if short[name] == label]
        if len(same) > 1:
            short |= _without_common_ends(same, width)
    if len(set(short.values())) < len(short):
        return list(names)
    return [short[name] for name in names]


def _without_common_ends(names: list[str], width: int) -> dict[str, str]:
    prefix = _n_common(names)
    rest = [name[prefix:] for name in names]
    suffix = _n_common([part[::-1] for part in rest])
    excess = max(map(len, names)) - width + 2
    front = min(prefix, max(excess // 2, excess - suffix))
    back = min(suffix, excess - front)
    labels = [f"{'…' * (front > 0)}{name[front : len(name) - back]}{'…' * (back > 0)}" for name in names]
    if max(map(len, labels)) > width:
        labels = names
    return dict(zip(names, labels, strict=True))


def _n_common(names: list[str]) -> int:
    """Return with how many characters all names begin."""
    columns = enumerate(zip(*names, strict=False))
    return next((i for i, letters in columns if len(set(letters)) > 1), min(map(len, names)))
