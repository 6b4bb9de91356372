"""Which leaves are submitted next: those lost with a worker first, then fresh ones in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from anyfold._plan.task import Leaf, TaskKey

__all__ = ["Supply"]


@dataclass(slots=True)
class Supply:
    """The leaves of a run that have not been submitted, drawn as needed."""

    fresh: Iterator[Leaf]
    n_fresh: int
    resources: Mapping[str, Mapping[str, float]]
    """What the leaves of a model need."""
    outcomes: Container[TaskKey]
    again: deque[tuple[Leaf, ...]] = field(default_factory=deque)
    """Units to run again; a leaf that was charged with a loss is alone in its unit."""
    positions: dict[TaskKey, int] = field(default_factory=dict)
    held: Leaf | None = None
    """Drawn already, for the next unit."""
    cutoff: int | None = None
    """Position of a failed leaf behind which nothing counts any more."""

    def take(self, size: int) -> tuple[Leaf, ...]:
        """Return the leaves of the next unit, at most so many of them where they are fresh."""
        while self.again:
            leaves = tuple(leaf for leaf in self.again.popleft() if self.is_wanted(leaf))
            if leaves:
                return leaves
        if self.cutoff is not None:
            return ()
        leaves = tuple(self._alike(size))
        self.n_fresh -= len(leaves)
        self._place(leaves)
        return leaves

    def needs(self, leaves: tuple[Leaf, ...]) -> Mapping[str, float]:
        """Return what a unit needs; its leaves need the same."""
        return self.resources.get(leaves[0].key.model, {})

    def put_back(self, leaves: Iterable[Leaf]) -> None:
        """Have leaves run again, as one unit."""
        unit = tuple(leaf for leaf in leaves if leaf.key not in self.outcomes)
        if unit:
            self.again.append(unit)

    def cut_off(self, key: TaskKey) -> None:
        """Let nothing count that comes behind this leaf."""
        position = self.positions[key]
        self.cutoff = position if self.cutoff is None else min(self.cutoff, position)

    def is_wanted(self, leaf: Leaf) -> bool:
        """Return whether the outcome of a leaf can still change what the run returns."""
        return leaf.key not in self.outcomes and (
            self.cutoff is None or self.positions[leaf.key] < self.cutoff
        )

    def drain(self) -> Iterator[Leaf]:
        """Draw all leaves that are left."""
        lost = [leaf for leaves in self.again for leaf in leaves]
        self.again.clear()
        rest = (*([self.held] if self.held is not None else []), *self.fresh)
        self.held = None
        self._place(rest)
        return chain(lost, rest)

    def _place(self, leaves: Iterable[Leaf]) -> None:
        for leaf in leaves:
            self.positions[leaf.key] = len(self.positions)

    def _alike(self, size: int) -> Iterator[Leaf]:
        """Draw up to so many leaves that need the same."""
        first: Mapping[str, float] | None = None
        for _ in range(size):
            leaf = self.held or next(self.fresh, None)
            self.held = None
            if leaf is None:
                return
            needs = self.resources.get(leaf.key.model, {})
            if first is not None and needs != first:
                self.held = leaf
                return
            first = needs
            yield leaf
