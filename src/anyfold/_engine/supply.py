"""What is submitted next: what was lost with a worker first, then fresh leaves in their order.

fresh leaves ──> branches ─────────────────────────────> units
└─> leaves that wait for their stem ──────> units, once it is fitted
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from anyfold._plan.prefix import Layout, Path
from anyfold._plan.task import Leaf, TaskKey
from anyfold.executors.base import Shared

__all__ = ["Stem", "Supply"]


@dataclass(slots=True, eq=False)
class Stem:
    """First steps that leaves have in common: fitted once on a fold, and given to all who need them."""

    example: Leaf
    """A leaf whose first steps these are."""
    path: Path
    parent: Stem | None
    waiting: deque[Leaf] = field(default_factory=deque)
    """Leaves that nobody was given yet."""
    unfinished: set[TaskKey] = field(default_factory=set)
    """Leaves without an outcome."""
    offshoots: list[Stem] = field(default_factory=list)
    """Stems that grow from it and are not fitted yet."""
    is_there: bool = False
    shared: Shared[Any] | None = None
    n_lost: int = 0
    """How many workers were lost while they fitted it."""


@dataclass(slots=True)
class Supply:
    """The leaves of a run that have not been submitted, drawn as needed."""

    fresh: Iterator[Leaf]
    n_fresh: int
    resources: Mapping[str, Mapping[str, float]]
    """What the leaves of a model need."""
    outcomes: Container[TaskKey]
    rank: Callable[[TaskKey], int]
    """The order in which the caller thinks of the leaves, whatever the order in which they run."""
    layout: Layout | None = None
    most_stems: int = 1
    """Stems that may be there at a time."""
    cuts_branches: bool = False
    """Whether leaves of a branch are given one by one too, since they meet on the same worker anyway."""
    again: deque[tuple[Leaf, ...]] = field(default_factory=deque)
    """Units to run again; a leaf that was charged with a loss is alone in its unit."""
    held: Leaf | None = None
    """Drawn already, for the next unit."""
    asked: Callable[[], bool] | None = None
    """Says whether there are more fresh leaves, where they stand for things that are counted otherwise."""
    cutoff: int | None = None
    """Rank of a failed leaf behind which nothing counts any more."""
    stems: dict[tuple[int, Path], Stem] = field(default_factory=dict)
    """By fold and path, as long as somebody needs them."""
    to_fit: deque[Stem] = field(default_factory=deque)

    def take(self, size: int) -> tuple[Leaf, ...]:
        """Return the leaves of the next unit, about so many of them where they are fresh."""
        while self.again:
            if leaves := self._wanted(self.again.popleft()):
                return leaves
        while True:
            leaves = self._from_stems(size)
            if not leaves and not self.to_fit and len(self.stems) < self.most_stems:
                leaves = tuple(self._alike(size)) or self._from_stems(size)
            if not leaves:
                return ()
            self.n_fresh -= len(leaves)
            if wanted := self._wanted(leaves):
                return wanted

    def needs(self, leaf: Leaf) -> Mapping[str, float]:
        """Return what a leaf needs; all leaves of a unit need the same."""
        return self.resources.get(leaf.key.model, {})

    def put_back(self, leaves: Iterable[Leaf]) -> None:
        """Have leaves run again, as one unit."""
        unit = tuple(leaf for leaf in leaves if leaf.key not in self.outcomes)
        if unit:
            self.again.append(unit)

    def next_again(self) -> tuple[tuple[Leaf, ...], ...]:
        """Return the unit to run again that `take` gives next, if there is one."""
        return tuple(islice(self.again, 1))

    def cut_off(self, key: TaskKey) -> None:
        """Let nothing count that comes behind this leaf."""
        self.cut_off_at(self.rank(key))

    def cut_off_at(self, rank: int) -> None:
        """Let nothing count that comes behind this rank."""
        self.cutoff = rank if self.cutoff is None else min(self.cutoff, rank)

    def is_wanted(self, leaf: Leaf) -> bool:
        """Return whether the outcome of a leaf can still change what the run returns."""
        return leaf.key not in self.outcomes and (self.cutoff is None or self.rank(leaf.key) < self.cutoff)

    def has_more(self) -> bool:
        """Return whether there are leaves left that may be submitted; True where nobody knows."""
        return bool(self.again) or (self.n_fresh > 0 if self.asked is None else self.asked())

    def drain(self) -> Iterator[Leaf]:
        """Draw all leaves that are left."""
        lost = [leaf for leaves in self.again for leaf in leaves]
        lost += [leaf for stem in self.stems.values() for leaf in stem.waiting]
        lost += [] if self.held is None else [self.held]
        self.again.clear()
        self.held = None
        return chain(lost, self.fresh)

    # ---- stems ----------------------------------------------------------------------------------

    def next_stem(self) -> Stem | None:
        """Return a stem that can be fitted now."""
        return self.to_fit.popleft() if self.to_fit else None

    def stem_of(self, leaf: Leaf) -> Stem | None:
        """Return the stem that a leaf grows from, as long as it is known."""
        path = None if self.layout is None else self.layout.stem(leaf.key)
        return None if path is None else self.stems.get((leaf.key.fold, path))

    def fitted(self, stem: Stem, shared: Shared[Any] | None) -> None:
        """Let what waits for a stem go on; with None its steps are fitted by each worker for itself."""
        stem.is_there, stem.shared = True, shared
        self.to_fit.extend(stem.offshoots)
        if stem.parent is not None:
            stem.parent.offshoots.remove(stem)
        self._let_go()

    def fell(self, stem: Stem) -> list[Leaf]:
        """Return all leaves that wait for a stem or what grows from it, which nobody is to fit any more."""
        leaves = list(stem.waiting)
        stem.waiting.clear()
        for offshoot in stem.offshoots:
            leaves += self.fell(offshoot)
            offshoot.is_there = True
        stem.offshoots.clear()
        return leaves

    def finished(self, key: TaskKey) -> None:
        """Let go of a stem when all has finished that grows from it."""
        path = None if self.layout is None else self.layout.stem(key)
        if path is not None and (stem := self.stems.get((key.fold, path))) is not None:
            stem.unfinished.discard(key)
            self._let_go()

    def release(self) -> None:
        """Let go of all stems."""
        for stem in self.stems.values():
            if stem.shared is not None:
                stem.shared.release()
        self.stems.clear()

    def _let_go(self) -> None:
        for place, stem in list(self.stems.items()):
            if stem.is_there and not (stem.unfinished or stem.offshoots or self._may_grow(stem)):
                del self.stems[place]
                if stem.shared is not None:
                    stem.shared.release()

    def _may_grow(self, stem: Stem) -> bool:
        """Return whether the leaves still to be drawn, which come in order, begin with one of this stem's."""
        self.held = self._draw()
        if self.held is None or self.layout is None or self.held.key.fold != stem.example.key.fold:
            return False
        path = self.layout.stem(self.held.key) or ()
        return path[: len(stem.path)] == stem.path

    def _grow(self, leaf: Leaf, path: Path) -> Stem:
        """Return the stem of this path on the leaf's fold, which is to be fitted if it is new."""
        assert self.layout is not None
        place = (leaf.key.fold, path)
        if (stem := self.stems.get(place)) is None:
            above = self.layout.parent(path)
            parent = None if above is None else self._grow(leaf, above)
            stem = self.stems[place] = Stem(leaf, path, parent)
            if parent is None:
                self.to_fit.append(stem)
            else:
                parent.offshoots.append(stem)
                if parent.is_there:
                    self.to_fit.append(stem)
        return stem

    def _from_stems(self, size: int) -> tuple[Leaf, ...]:
        """Take whole branches that wait for a stem which is there, until there are about so many leaves."""
        for stem in self.stems.values():
            if stem.is_there and stem.waiting:
                needs, branch = self.needs(stem.waiting[0]), None
                leaves: list[Leaf] = []
                while stem.waiting:
                    own = self._branch(stem.waiting[0], stem)
                    is_full = len(leaves) >= size and self._may_end(own, branch)
                    if is_full or self.needs(stem.waiting[0]) != needs:
                        break
                    leaves.append(stem.waiting.popleft())
                    branch = own
                return tuple(leaves)
        return ()

    def _branch(self, leaf: Leaf, stem: Stem) -> Hashable:
        """Return what is equal for leaves on this stem that one worker should run."""
        assert self.layout is not None
        branch = self.layout.branch(leaf.key)
        return None if branch == (leaf.key.fold, stem.path) else branch

    def _may_end(self, following: Hashable, branch: Hashable) -> bool:
        """Return whether a unit may end before a leaf of this branch."""
        return self.cuts_branches or following is None or following != branch

    # ---- fresh leaves ---------------------------------------------------------------------------

    def _wanted(self, leaves: tuple[Leaf, ...]) -> tuple[Leaf, ...]:
        for leaf in leaves:
            if not self.is_wanted(leaf):
                self.finished(leaf.key)
        return tuple(filter(self.is_wanted, leaves))

    def _draw(self) -> Leaf | None:
        leaf, self.held = self.held, None
        return leaf or next(self.fresh, None)

    def _alike(self, size: int) -> Iterator[Leaf]:
        """Draw whole branches of leaves that need the same, until there are about so many."""
        first: Mapping[str, float] | None = None
        branch: Hashable = None
        n_drawn = 0
        while (leaf := self._draw()) is not None:
            path = None if self.layout is None else self.layout.stem(leaf.key)
            own = None if self.layout is None else self.layout.branch(leaf.key)
            is_full = n_drawn >= size and self._may_end(own, branch)
            if is_full or (first is not None and (path is not None or self.needs(leaf) != first)):
                self.held = leaf
                return
            if path is not None:
                self._wait(leaf, path)
                return
            first, branch = self.needs(leaf), own
            n_drawn += 1
            yield leaf
            if own is None and n_drawn >= size:
                return

    def _wait(self, first: Leaf, path: Path) -> None:
        """Have a leaf and its neighbours that grow from the same stem wait for that."""
        assert self.layout is not None
        stem = self._grow(first, path)
        leaf: Leaf | None = first
        while leaf is not None and leaf.key.fold == first.key.fold and self.layout.stem(leaf.key) == path:
            stem.waiting.append(leaf)
            stem.unfinished.add(leaf.key)
            leaf = self._draw()
        self.held = leaf
        self._let_go()
