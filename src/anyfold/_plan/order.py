"""In which order leaves are run: fold by fold, what begins alike together, what takes long first.

The order changes no number. What a candidate took on the folds before, or in an earlier run of the same
process, tells how long it will take; so the last thing that is started is a short one, and no worker waits
long for another at the end.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

from anyfold._plan.prefix import Layout
from anyfold._plan.task import Outcome, TaskKey

__all__ = ["Order", "remember"]

WORTH_KNOWING = 0.05
"""Seconds; it does not matter when shorter tasks are started."""

REMEMBERED = 10_000
"""Labels whose seconds are known to later runs."""

Place = tuple[str, int]
"""Model and candidate."""

_remembered: OrderedDict[Hashable, float] = OrderedDict()


class Order:
    """The keys of a run in the order in which they should start; to be drawn as the run goes on.

    Parameters
    ----------
    keys : sequence of TaskKey
        As the caller orders them, by fold.
    layout : Layout
        What they have in common.
    outcomes : mapping of TaskKey to Outcome
        What has finished: what is in there is left out, and tells how long the same takes on later folds.
    labels : mapping of (str, int) to hashable
        By model and candidate: what a later run would call the same.
    n_workers : int
        One worker needs no order, and is given the caller's.
    """

    def __init__(
        self,
        keys: Sequence[TaskKey],
        layout: Layout,
        outcomes: Mapping[TaskKey, Outcome],
        labels: Mapping[Place, Hashable],
        n_workers: int,
    ) -> None:
        self._keys = sorted(keys, key=attrgetter("fold"))
        self._layout = layout
        self._outcomes = outcomes
        self._labels = labels
        self._n_workers = n_workers
        self.n_left = sum(key not in outcomes for key in keys)

    def __iter__(self) -> Iterator[TaskKey]:
        seconds = {place: _remembered[label] for place, label in self._labels.items() if label in _remembered}
        before: list[TaskKey] = []
        for _, fold in groupby(self._keys, key=attrgetter("fold")):
            keys = list(fold)
            if self._n_workers > 1:
                seconds.update(_measured(before, self._outcomes))
            yield from [key for key in self._sorted(keys, seconds) if key not in self._outcomes]
            before = keys

    def _sorted(self, keys: Sequence[TaskKey], seconds: Mapping[Place, float]) -> list[TaskKey]:
        """Order the leaves of one fold as a tree is walked, the branches that take longest first."""
        slow = self._n_workers > 1 and any(value >= WORTH_KNOWING for value in seconds.values())
        if not slow and not any(self._layout.paths.values()):
            return list(keys)
        usual = sum(seconds.values()) / len(seconds) if slow else 0.0
        ways = [self._way(key) for key in keys]
        first: dict[Hashable, int] = {}
        total: defaultdict[Hashable, float] = defaultdict(float)
        for key, way in zip(keys, ways, strict=True):
            for length in range(1, len(way) + 1):
                first.setdefault(way[:length], len(first))
                if slow:
                    total[way[:length]] -= seconds.get((key.model, key.candidate), usual)
        positions = {
            key: [(total[way[:length]], first[way[:length]]) for length in range(1, len(way) + 1)]
            for key, way in zip(keys, ways, strict=True)
        }
        return sorted(keys, key=positions.__getitem__)

    def _way(self, key: TaskKey) -> tuple[Hashable, ...]:
        place = key.model, key.candidate
        return (*self._layout.paths.get(place, ()), place)


def remember(
    keys: Iterable[TaskKey], outcomes: Mapping[TaskKey, Outcome], labels: Mapping[Place, Hashable]
) -> None:
    """Keep what each task took, for later runs, if it matters to any of them."""
    measured = _measured(keys, outcomes)
    if max(measured.values(), default=0.0) < WORTH_KNOWING:
        return
    for place, seconds in measured.items():
        if (label := labels.get(place)) is not None:
            _remembered[label] = seconds
            _remembered.move_to_end(label)
    while len(_remembered) > REMEMBERED:
        _remembered.popitem(last=False)


def _measured(keys: Iterable[TaskKey], outcomes: Mapping[TaskKey, Outcome]) -> dict[Place, float]:
    done = filter(None, map(outcomes.get, keys))
    return {
        (out.key.model, out.key.candidate): out.ended - out.started
        for out in done
        if out.ended > out.started  # of what comes from a journal it is not known
    }
