"""What pipelines have in common: the steps that they begin with, as a tree on each fold.

    scale ─┬─ pca(5) ─┬─ C=1         path (0, 1)
           │          └─ C=10        path (0, 1)
           └─ pca(9) ─── C=1         path (0, 2)

A path names the steps before the last one by numbers: equal numbers stand for equal steps. It decides what
is run near to what, never what is taken for equal; that the worker decides, on what it really fits.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from anyfold import _compat
from anyfold._plan.canonical import Encoder, Untrusted, token
from anyfold._plan.code_identity import CodeIdentities
from anyfold._plan.content import encode_estimator
from anyfold._plan.task import TaskKey

__all__ = ["Layout", "Path", "Steps", "layout", "leading_steps"]

Path = tuple[int, ...]

SPARE = 4
"""Subtrees per worker that are enough to keep all of them busy to the end."""

LARGEST_BRANCH = 512
"""Leaves that may go to one worker together."""


class Steps:
    """Numbers the steps of pipelines, equal ones equally."""

    def __init__(self) -> None:
        self._encoder = Encoder(CodeIdentities())
        self._numbers: dict[Hashable, int] = {}
        self._encoded: dict[int, tuple[Any, bytes]] = {}

    def path(self, estimator: Any, parameters: Mapping[str, Any] | None = None) -> Path:
        """Return the path of a candidate: of an estimator with parameters still to be set.

        Steps from the first one on whose content cannot be compared are left out.
        """
        path: Path = ()
        with suppress(Untrusted, _Unclear):
            for part in self._parts(estimator, dict(parameters or {}), is_last=True):
                path += (self._numbers.setdefault(part, len(self._numbers)),)
        return path

    def _parts(self, estimator: Any, parameters: dict[str, Any], *, is_last: bool) -> Iterable[Hashable]:
        if not _compat.is_pipeline(estimator) or estimator.memory is not None:
            if not is_last:
                yield (
                    self._encode(estimator),
                    tuple((name, self._encode(value)) for name, value in sorted(parameters.items())),
                )
            return
        by_step: dict[str, dict[str, Any]] = {name: {} for name, _ in estimator.steps}
        replaced: dict[str, Any] = {}
        for name, value in parameters.items():
            step, _, rest = name.partition("__")
            if step not in by_step:
                raise _Unclear  # the pipeline's own parameter, or one that does not exist
            if rest:
                by_step[step][rest] = value
            else:
                replaced[step] = value
        last = len(estimator.steps) - 1
        for position, (name, step) in enumerate(estimator.steps):
            step = replaced.get(name, step)
            if step is None or isinstance(step, str):
                continue
            yield from self._parts(step, by_step[name], is_last=is_last and position == last)

    def _encode(self, value: Any) -> bytes:
        known = self._encoded.get(id(value))
        if known is None or known[0] is not value:
            encoded = token("part", encode_estimator(self._encoder, value))
            known = self._encoded[id(value)] = value, encoded
        return known[1]


class _Unclear(Exception):
    """What parameters do to a pipeline is not said by their names."""


def leading_steps(estimator: Any) -> list[Any]:
    """Return the transformers before the last step of a pipeline, those of nested ones in their place."""
    return [] if not _compat.is_pipeline(estimator) else list(_transformers(estimator.steps[:-1]))


def _transformers(steps: Iterable[tuple[str, Any]]) -> Iterable[Any]:
    for _, step in steps:
        if _compat.is_pipeline(step) and step.memory is None:
            yield from _transformers(step.steps)
        elif step is not None and not isinstance(step, str):
            yield step


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the trees of a run are cut into units of work.

    A branch is run by one worker. Where there are fewer branches than workers can use, its stem, the steps
    that it shares with others, is fitted by one worker and given to all.
    """

    paths: Mapping[tuple[str, int], Path]
    """By model and candidate."""
    branch_depth: int
    """Steps that the leaves of a branch have in common; 0 where it does not matter who runs what."""
    stems: frozenset[Path]
    """Paths whose fitted steps are given to others."""

    def branch(self, key: TaskKey) -> Hashable:
        """Return what is equal for leaves that one worker should run; None for a leaf that is alone."""
        path = self.paths.get((key.model, key.candidate), ())
        return (key.fold, path[: self.branch_depth]) if path and self.branch_depth else None

    def stem(self, key: TaskKey) -> Path | None:
        """Return the path of the stem that a leaf grows from; None where it is not shared."""
        return self._longest(self.paths.get((key.model, key.candidate), ()))

    def parent(self, stem: Path) -> Path | None:
        """Return the stem that another one grows from."""
        return self._longest(stem[:-1])

    def _longest(self, path: Path) -> Path | None:
        for length in range(len(path), 0, -1):
            if path[:length] in self.stems:
                return path[:length]
        return None


def layout(paths: Mapping[tuple[str, int], Path], n_folds: int, n_workers: int) -> Layout:
    """Cut trees so that there is enough for all workers, and no step is fitted twice.

    Parameters
    ----------
    paths : mapping of (str, int) to path
        By model and candidate.
    n_folds : int
        Each fold has these trees.
    n_workers : int
        How many leaves run at once.
    """
    if n_workers == 1:
        return Layout(paths, 0, frozenset())
    deepest = max(map(len, paths.values()), default=0)
    for depth in range(1, deepest + 1):
        sizes = Counter(path[:depth] for path in paths.values() if len(path) >= depth)
        n_shorter = len(paths) - sizes.total()
        if n_folds * (len(sizes) + n_shorter) >= SPARE * n_workers and max(sizes.values()) <= LARGEST_BRANCH:
            break
    else:
        depth = deepest + 1
    followers: dict[Path, set[Hashable]] = defaultdict(set)
    for place, path in paths.items():
        for length in range(1, min(depth, len(path) + 1)):
            followers[path[:length]].add(path[length] if length < len(path) else place)
    return Layout(paths, depth, frozenset(path for path, after in followers.items() if len(after) > 1))
