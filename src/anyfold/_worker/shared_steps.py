"""Fits what pipelines have in common once: what was fitted alike before is taken, not fitted again.

    candidate 1   scale ──> pca(5) ──> C=1      fits all three
    candidate 2   scale ──> pca(5) ──> C=10     takes scale and pca(5), fits the last
    candidate 3   scale ──> pca(9) ──> C=1      takes scale, fits the others

Scikit-learn's own code runs every pipeline. The transformers inside are marked: where one is asked to fit
or to transform data whose content is known, the answer is looked up under that content, its class and
parameters. So it does not matter whether the same step stands in a pipeline, in a nested one, in a
`ColumnTransformer` or in a `FeatureUnion`, nor which model it belongs to.

A transformer takes part only if sharing cannot show: its class and parameters can be compared, what it
returns can be made read-only, it draws from no global generator, leaves the data that it is given as it was,
and transforming leaves itself as it was.
"""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone

from anyfold import _compat
from anyfold._data.kinds import freeze, guard, is_guardable, is_readonly_error, unchanged
from anyfold._data.serialize import dumps, loads, serialize
from anyfold._plan.canonical import Untrusted, digest
from anyfold._plan.content import encode_estimator
from anyfold._worker.kept_steps import (
    NOT_SHARED,
    Kept,
    Key,
    Made,
    refuse,
    settings,
    size_of,
    store,
    unshareable,
)
from anyfold._worker.said import said_now

__all__ = ["SharedSteps"]


CLONE = "__sklearn_clone__"

_current: ContextVar[SharedSteps | None] = ContextVar("anyfold_shared_steps", default=None)


@dataclass(eq=False)
class SharedSteps:
    """What one task may take from others, and leaves for them.

    Parameters
    ----------
    task : hashable
        Which task it is.
    known : list of (object, bytes)
        Data whose content is known: slices of X, and what stands for them.
    y : object
        The target of the training data.
    """

    task: Hashable
    known: list[tuple[Any, Key]]
    y: Any
    saved: float = 0.0
    """Seconds that were not spent since they were last asked for, as if each step had been fitted here."""
    total: float = 0.0
    """Seconds that were not spent."""
    n_fits: int = 0
    """How many fits were taken."""
    _contents: dict[int, tuple[Any, Key]] = field(init=False)
    _fits: dict[int, tuple[Any, Key]] = field(default_factory=dict)
    _parts: dict[int, tuple[Any, Key]] = field(default_factory=dict)
    """Of parts of a ColumnTransformer, by id: that, and the columns which they get."""
    _inputs: dict[int, Key] = field(default_factory=dict)
    """What a ColumnTransformer is working on, by its id."""
    _marked: list[Any] = field(default_factory=list)
    _keys: list[Key] = field(default_factory=list)
    """Of what was fitted or taken."""

    def __post_init__(self) -> None:
        self._contents = {id(obj): (obj, key) for obj, key in self.known}

    @contextmanager
    def attached(self, estimator: Any, *, is_transformer: bool = False) -> Iterator[SharedSteps]:
        """Mark the steps of an unfitted estimator that belongs to this task; unmark them at the end.

        The last step of a pipeline is none of them, unless all of it is a transformer.
        """
        token = _current.set(self)
        try:
            self._mark_inside(estimator, is_transformer=is_transformer)
            yield self
        finally:
            _current.reset(token)
            for owner in self._marked:
                for name in [
                    name for name, value in vars(owner).items() if isinstance(value, (_Memo, _Clone))
                ]:
                    del vars(owner)[name]

    def take_saved(self) -> float:
        """Return the seconds that were saved since this was last called."""
        saved, self.saved = self.saved, 0.0
        return saved

    def made(self) -> list[Made]:
        """Return what this task has fitted or taken, for other processes."""
        made: list[Made] = []
        for key in self._keys:
            kept = store.peek(key)
            if key in unshareable or kept is NOT_SHARED:
                made.append((key, None))
            elif kept is not None:
                made.append((key, replace(kept, traceback=None)))
        return made

    # ---- marking --------------------------------------------------------------------------------

    def _mark_inside(self, estimator: Any, *, is_transformer: bool) -> None:
        if _compat.is_pipeline(estimator) and estimator.memory is None and not _has_callbacks(estimator):
            steps = [step for _, step in estimator.steps]
            for step in steps if is_transformer else steps[:-1]:
                self._mark(step)
            if not is_transformer and steps:
                self._mark_inside(steps[-1], is_transformer=False)
        elif _compat.is_feature_union(estimator) and estimator.n_jobs in (None, 1):
            for _, part in estimator.transformer_list:
                self._mark(part)
        elif _compat.is_column_transformer(estimator) and estimator.n_jobs in (None, 1):
            for _, part, columns in estimator.transformers:
                with suppress(Untrusted), settings.encoding:
                    self._mark(part, (estimator, settings.encoder.encode(columns)))

    def _mark(self, step: Any, part_of: tuple[Any, Key] | None = None) -> None:
        if not hasattr(step, "__dict__") or isinstance(step, (type, str)) or not hasattr(step, "get_params"):
            return
        if getattr(type(step), CLONE, None) is not BaseEstimator.__sklearn_clone__:
            return  # what is its own clone, as what is frozen, belongs to other tasks too
        for name in ("fit_transform" if hasattr(step, "fit_transform") else "fit", "transform"):
            if name not in vars(step) and _is_method(step, name):
                vars(step)[name] = _Memo(step, name)
        vars(step)[CLONE] = _Clone(step)
        self._marked.append(step)
        if part_of is not None:
            self._parts[id(step)] = part_of
        self._mark_inside(step, is_transformer=True)

    def _cloned(self, step: Any) -> Any:
        mark = vars(step).pop(CLONE)
        try:
            copy = clone(step)
        finally:
            vars(step)[CLONE] = mark
        self._mark(copy, self._parts.get(id(step)))
        return copy

    # ---- calls ----------------------------------------------------------------------------------

    def call(self, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do what a marked transformer was asked for, or take what came of it before."""
        fits = name != "transform"
        content = self._content(owner, args)
        key = None if content is None else self._key(owner, name, content, args, kwargs)
        if fits:
            self._fits.pop(id(owner), None)
        if content is None or key is None:
            return self._do(owner, name, args, kwargs)[0]
        own: list[tuple[Kept, bool]] = []

        def build() -> tuple[Kept, int]:
            own.append(self._run(owner, name, key, content, args, kwargs))
            kept, shareable = own[0]
            return (kept, size_of(kept)) if shareable else (NOT_SHARED, 0)

        begun = time.perf_counter()
        kept = store.get(key, build)
        self._keys.append(key)
        if own:
            kept, shareable = own[0]
        elif kept is NOT_SHARED:
            return self._do(owner, name, args, kwargs)[0]
        else:
            shareable = True
            self._take(owner, kept, time.perf_counter() - begun)
        if kept.error is not None:
            raise _again(kept, is_first=bool(own))
        if fits and shareable:
            self._fits[id(owner)] = owner, key
        if name == "fit" and shareable:
            return owner
        if not shareable:
            return kept.output
        output = guard(kept.output)
        self._contents[id(output)] = output, key
        return output

    def _do(self, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, bool]:
        """Do what was asked for; return what came of it, and whether the data is still what it was."""
        data = args[0] if args else None
        is_unchanged = unchanged(data)
        try:
            output = _original(owner, name)(*args, **kwargs)
        finally:
            if not (as_before := is_unchanged()):
                self._contents.pop(id(data), None)
        return output, as_before

    def _content(self, owner: Any, args: tuple[Any, ...]) -> Key | None:
        """Return what is known of the data that a transformer was given."""
        if (part_of := self._parts.get(id(owner))) is not None:
            whole = self._inputs.get(id(part_of[0]))
            return None if whole is None else digest([b"columns", whole, part_of[1]])
        known = self._contents.get(id(args[0])) if args else None
        return None if known is None else known[1]

    def _key(
        self, owner: Any, name: str, content: Key, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Key | None:
        """Return what a call is known by; None where something about it is not known."""
        y = args[1] if len(args) > 1 else None
        if len(args) > 2 or _has_callbacks(owner) or (y is not None and y is not self.y):
            return None
        try:
            with settings.encoding:
                given = settings.encoder.named(kwargs, "the parameter") if kwargs else b""
                step = b"" if name == "transform" else encode_estimator(settings.encoder, owner)
        except Untrusted:
            return None
        if name == "transform":
            fit = self._fits.get(id(owner))
            return None if fit is None else digest([b"transform", fit[1], content, given])
        key = digest([name.encode(), step, content, given, b"" if y is None else b"y"])
        return None if key in unshareable else key

    def _run(
        self, owner: Any, name: str, key: Key, content: Key, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Kept, bool]:
        """Do what was asked for, and return all that came of it and whether others may have it."""
        said = said_now()
        n_said = said.lengths()
        generators = _generators()
        transforms = name == "transform"
        state = _bytes_of(_state(owner)) if transforms else None
        saved, self.saved = self.saved, 0.0
        error, traceback, output, is_unchanged = None, None, None, True
        self._inputs[id(owner)] = content
        begun = time.perf_counter()
        try:
            output, is_unchanged = self._do(owner, name, args, kwargs)
        except Exception as raised:
            if is_readonly_error(raised):
                raise
            error, traceback = raised, raised.__traceback__
            is_unchanged = not args or id(args[0]) in self._contents or id(owner) in self._parts
        finally:
            seconds = time.perf_counter() - begun + self.saved
            self.saved += saved
            del self._inputs[id(owner)]
        answers_oddly = name == "fit" and error is None and output is not owner
        if generators != _generators() or not is_unchanged or answers_oddly:
            refuse(key)
        if transforms and (state is None or state != _bytes_of(_state(owner))):
            refuse(key, self._fits[id(owner)][1])
        fitted = {} if transforms else _detached(_state(owner))
        result = None if output is owner else output
        kept = Kept(
            result,
            None if transforms else fitted,
            seconds,
            said.since(n_said),
            error,
            traceback,
            self.task,
        )
        if key in unshareable or not is_guardable(kept.output):
            return kept, False
        freeze(kept.output)
        for attribute, value in list(fitted.items()):
            if type(value) is np.ndarray:
                # A view: the memory may be somebody else's, such as a table of the module's.
                fitted[attribute] = vars(owner)[attribute] = guard(value)
            else:
                freeze(value)
        return kept, True

    def _take(self, owner: Any, kept: Kept, waited: float) -> None:
        """Be as if this task had made the call itself."""
        if kept.state is not None:
            vars(owner).update(kept.state)
        self.saved += kept.seconds - waited
        if kept.by != self.task:
            self.n_fits += kept.state is not None
            self.total += kept.seconds - waited
        said_now().extend(kept.said)


def _again(kept: Kept, *, is_first: bool) -> Exception:
    """Return an error to raise: for each task one of its own, since a traceback grows where it is raised."""
    assert kept.error is not None
    error = kept.error
    if not is_first:
        with suppress(Exception):
            copy = loads(dumps(error))
            error = copy if type(copy) is type(error) else error
    return error.with_traceback(kept.traceback)


class _Memo:
    """Stands on an instance in place of its method."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner = owner
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        task = _current.get()
        if task is None:
            return _original(self.owner, self.name)(*args, **kwargs)
        return task.call(self.owner, self.name, args, kwargs)


class _Clone:
    """Stands on an instance so that a clone of it is marked as well."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def __call__(self) -> Any:
        task = _current.get()
        assert task is not None
        return task._cloned(self.owner)


def _original(owner: Any, name: str) -> Callable[..., Any]:
    method: Callable[..., Any] = inspect.getattr_static(type(owner), name).__get__(owner, type(owner))
    return method


def _is_method(step: Any, name: str) -> bool:
    return hasattr(step, name) and inspect.getattr_static(type(step), name, None) is not None


def _state(owner: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(owner).items() if not isinstance(value, (_Memo, _Clone))}


def _detached(value: Any) -> Any:
    """Return attributes in which no part belongs to a task any more: it would be at work for that task."""
    if type(value) in (list, tuple):
        return type(value)(map(_detached, value))
    if type(value) is dict:
        return {key: _detached(part) for key, part in value.items()}
    if not isinstance(getattr(value, "__dict__", {}).get(CLONE), _Clone):
        return value
    part = object.__new__(type(value))
    vars(part).update(_detached(_state(value)))
    return part


def _bytes_of(state: Mapping[str, Any]) -> bytes | None:
    """Return what tells two states of a transformer apart."""
    try:
        serialized = serialize(state)
        return digest([serialized.stream, *map(bytes, serialized.buffers)])
    except Exception:
        return None


def _generators() -> tuple[Any, ...]:
    """Return the state of the global generators; nothing where threads draw from them together."""
    if settings.n_tasks > 1:
        return ()
    name, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest


def _has_callbacks(estimator: Any) -> bool:
    return bool(getattr(estimator, "_skl_callbacks", None))
