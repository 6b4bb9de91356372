"""Runs calls of any function: what a leaf does that is no fit of a model on a fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from anyfold._data.kinds import private_copy
from anyfold._plan.task import Leaf
from anyfold._worker.alone import alone_if_needed, with_parts
from anyfold._worker.execute import Produced
from anyfold.executors.base import Shared

__all__ = ["Call", "Calls"]

SCALARS = (type(None), bool, int, float, complex, str, bytes)


@dataclass(frozen=True, slots=True)
class Call:
    """A function and what it is called with."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the function is called."""
        return str(getattr(self.function, "__name__", type(self.function).__name__)).strip("_")


@dataclass(frozen=True, slots=True)
class _Common:
    """Stands for an object that several calls have in common."""

    position: int


@dataclass(frozen=True, slots=True)
class Calls:
    """The work of calls whose common objects are shared."""

    common: Shared[list[Any]]

    @staticmethod
    def taken_apart(calls: list[Call]) -> tuple[list[Any], list[Call]]:
        """Return the objects that several calls have in common, and calls that refer to them."""
        used = Counter(id(value) for call in calls for value in (*call.args, *call.kwargs.values()))
        common: list[Any] = []
        positions: dict[int, _Common] = {}

        def referred(value: Any) -> Any:
            if used[id(value)] < 2 or isinstance(value, SCALARS):
                return value
            if id(value) not in positions:
                positions[id(value)] = _Common(len(common))
                common.append(value)
            return positions[id(value)]

        own = [
            Call(
                call.function,
                tuple(map(referred, call.args)),
                {name: referred(value) for name, value in call.kwargs.items()},
            )
            for call in calls
        ]
        return common, own

    def run(self, leaf: Leaf, *, writable: bool) -> Produced:
        """Make one call, with ``writable`` on copies of what it has in common with others."""
        assert leaf.parameters is not None
        call: Call = leaf.parameters["call"]
        common = self.common.get()

        def resolved(value: Any) -> Any:
            if not isinstance(value, _Common):
                return value
            return private_copy(common[value.position]) if writable else common[value.position]

        args = [resolved(value) for value in call.args]
        kwargs = {name: resolved(value) for name, value in call.kwargs.items()}
        parts = chain.from_iterable(map(with_parts, (*args, *kwargs.values())))
        with alone_if_needed(*parts):
            return Produced(None, {"value": call.function(*args, **kwargs)})
