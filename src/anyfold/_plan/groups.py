"""Items of a map, and how many of them make a group that one worker runs in one go.

Items that take next to no time are grouped until a group is worth its dispatch. A worker gives back what it
has not begun when a group takes long, so that a guess that was too high costs little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

from anyfold._plan.task import Leaf, TaskKey
from anyfold._plan.units import WORTH_DISPATCHING

__all__ = ["LONGEST_GROUP", "SHORTEST_GROUP", "BatchKey", "Group", "ItemKey", "group_size"]

LONGEST_GROUP = 2 * WORTH_DISPATCHING
"""Seconds after which a worker begins with no further item of a group."""

SHORTEST_GROUP = WORTH_DISPATCHING / 20
"""Seconds; what is shorter costs more to hand out than it could save at the end."""

MOST_ITEMS = 20_000
MOST_BYTES = 1 << 20
GROWTH = 64
"""How many times larger than the largest before a group may be."""

MOST_NAMED = 10


@dataclass(frozen=True, slots=True, order=True)
class ItemKey(TaskKey):
    """The key of some items: the name of the function, how many they are, the index of the first."""

    nouns: ClassVar[tuple[str, str]] = ("item", "items")

    def __str__(self) -> str:
        return self.names(self.model, range(self.fold, self.fold + self.candidate))

    @classmethod
    def names(cls, model: str, folds: Sequence[int]) -> str:
        """Name several items of one map."""
        noun = cls.nouns[len(folds) > 1]
        folds = sorted(folds)
        if len(folds) > 2 and folds[-1] - folds[0] == len(folds) - 1:
            return f"{model}, {noun} {folds[0]} to {folds[-1]}"
        named = ", ".join(map(str, folds[:MOST_NAMED]))
        more = f" and {len(folds) - MOST_NAMED} more" if len(folds) > MOST_NAMED else ""
        return f"{model}, {noun} {named}{more}"


@dataclass(frozen=True, slots=True, order=True)
class BatchKey(ItemKey):
    """The key of a batch of calls that joblib has put together."""

    nouns: ClassVar[tuple[str, str]] = ("batch", "batches")


@dataclass(frozen=True, slots=True)
class Group(Leaf):
    """Items that follow one another."""

    load: Any = None
    """The items as the worker gets them, packed where it is another process."""
    items: Sequence[Any] = ()
    pack: Callable[[Sequence[Any]], Any] | None = None
    """What packs items; raises where it cannot. Neither of these two travels."""

    @classmethod
    def of(cls, key: ItemKey, items: Sequence[Any], pack: Callable[[Sequence[Any]], Any] | None) -> Group:
        """Return the group of these items."""
        return cls(key, None, items if pack is None else pack(items), items, pack)

    def parts(self) -> list[Group]:
        """Return each item as a group by itself; nothing where there is only one."""
        if len(self.items) == 1:
            return []
        first = self.key.fold
        return [
            self.of(self._key(1, index), [item], self.pack) for index, item in enumerate(self.items, first)
        ]

    def _key(self, n_items: int, first: int) -> ItemKey:
        return ItemKey(self.key.model, n_items, first)

    def __reduce__(self) -> Any:
        return Group, (self.key, None, self.load)


def group_size(
    n_left: int | None,
    n_workers: int,
    item_seconds: float | None,
    item_bytes: float,
    largest: int,
    start: int = 1,
) -> int:
    """Return how many items the next group should have.

    As with units of leaves, a group is worth a dispatch, but no more than half of a worker's fair share of
    what is left where that is known.

    Parameters
    ----------
    n_left : int or None
        Items that are left; None where nobody knows.
    n_workers : int
        Who share them.
    item_seconds : float or None
        What an item takes; None where none was measured.
    item_bytes : float
        What its arguments or its result have in bytes.
    largest : int
        Items of the largest group so far.
    start : int
        Items of a group as long as nothing was measured.
    """
    worth: float
    if item_seconds is None:
        worth, least = start, 1.0
    else:
        worth, least = (seconds / max(item_seconds, 1e-9) for seconds in (WORTH_DISPATCHING, SHORTEST_GROUP))
    if n_left is not None:
        # Where that would be less than is worth its way, what is left makes equal groups of so much.
        equal = n_left / max(1, ceil(n_left / least))
        worth = min(worth, max(n_left / (2 * n_workers), equal))
    return max(1, int(min(worth, MOST_ITEMS, GROWTH * largest, MOST_BYTES / max(item_bytes, 1.0))))
