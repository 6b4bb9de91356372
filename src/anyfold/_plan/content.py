"""Keys by content: equal where the same work gives the same outcome, in any process and any run.

    key of a task = hash of   model      class and parameters, with their code and versions
                              data       X, y, and what is passed to fit and to the scorer
                              fold       its number, by which seeds are, and its indices
                              scorers    by the name of what they measure
                              conditions root seed, configuration, threads, versions, what is returned

Names and positions of models have no part in it. Where something has no content that could be compared
there is no key, and a reason instead.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from sklearn.base import BaseEstimator, clone

from anyfold import _compat
from anyfold._plan.canonical import Encoder, Untrusted, digest, token, within
from anyfold._plan.code_identity import CodeIdentities
from anyfold._plan.task import Leaf, TaskKey

__all__ = [
    "Conditions",
    "ContentKey",
    "HasData",
    "HasModel",
    "JournalUse",
    "content_keys",
    "describe_model",
    "encode_estimator",
]

MEANING = 1
"""Counted up whenever a task with the same key would come to something else than it did before."""

NO_NUMBERS = frozenset({"display", "print_changed_only"})
"""Options of scikit-learn that change no number."""


@dataclass(frozen=True, slots=True)
class ContentKey:
    """What is known of the content of one task."""

    digest: str | None
    """64 hexadecimal digits; None where the content cannot be trusted to be all there is."""
    reason: str = ""
    """Why there is no digest."""
    model: str = ""
    """What kind of model it is, for people to read."""


@dataclass(frozen=True, slots=True, repr=False)
class JournalUse:
    """What a journal did for one run."""

    path: str
    taken: frozenset[TaskKey]
    """Tasks whose outcome was there already."""
    untrusted: Mapping[str, str]
    """Names of models whose tasks were computed and not recorded, and why."""
    reason: str = ""
    """Why nothing could be taken at all."""
    stopped: str | None = None
    """Why nothing was recorded any more from some point on."""

    def __repr__(self) -> str:
        parts = [f"{len(self.taken)} tasks taken from {self.path!r}"]
        if self.untrusted:
            parts.append(f"not kept: {', '.join(map(repr, self.untrusted))}")
        parts += [text for text in (self.reason, self.stopped) if text]
        return f"JournalUse({'; '.join(parts)})"


class HasData(Protocol):
    """Data and its splits, such as `Folds`."""

    X: Any
    y: Any
    splits: Any


class HasModel(Protocol):
    """One model and what goes with it."""

    @property
    def estimator(self) -> Any: ...

    @property
    def scorer(self) -> Any: ...

    @property
    def pairwise(self) -> bool: ...

    @property
    def fit_params(self) -> Mapping[str, Any]: ...

    @property
    def score_params(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Conditions:
    """What else the numbers of a whole run depend on."""

    root_seed: int
    inner_threads: int
    return_train_score: bool
    sklearn_config: Mapping[str, Any]
    warning_filters: Sequence[tuple[Any, ...]]
    """As `warnings.filters` holds them: they may turn warnings of a model into errors."""
    versions: Mapping[str, str]
    """What a worker says of itself at first contact."""


def content_keys(
    leaves: Iterable[Leaf],
    models: Mapping[str, HasModel],
    data: HasData,
    identity: str,
    conditions: Conditions,
) -> dict[TaskKey, ContentKey]:
    """Return the key of each task; data, models and scorers are read once, however many tasks there are.

    Parameters
    ----------
    leaves : iterable of Leaf
        The tasks.
    models : mapping of str to model
        By name, as they are cloned, with scorer and parameters.
    data : Folds
        What is hashed is remembered for as long as it lives.
    identity : str
        Equal as long as the data is the same.
    conditions : Conditions
        Of the run.
    """
    return _Keys(models, data, identity, conditions).of(leaves)


def describe_model(estimator: Any) -> str:
    """Return the class of a model, for a pipeline with the classes of its steps."""
    name = type(estimator).__qualname__
    steps = getattr(estimator, "steps", None)
    if not isinstance(steps, list):
        return name
    shown = [part if isinstance(part, str) else describe_model(part) for _, part, *_ in steps]
    return f"{name}({', '.join(shown)})"


Part = bytes | Untrusted


class _Keys:
    """The parts that the tasks of one run share, each worked out when it is first needed."""

    def __init__(
        self, models: Mapping[str, HasModel], data: HasData, identity: str, conditions: Conditions
    ) -> None:
        self._models = models
        self._data = data
        self._identity = identity
        self._conditions = conditions
        self._encoder = Encoder(CodeIdentities())
        self._parts: dict[Any, Part] = {}

    def of(self, leaves: Iterable[Leaf]) -> dict[TaskKey, ContentKey]:
        keys = {}
        for leaf in leaves:
            model, candidate, fold = leaf.key.model, leaf.key.candidate, leaf.key.fold
            description = describe_model(self._models[model].estimator)
            try:
                parts = (
                    self._once("conditions", lambda: _encode_conditions(self._encoder, self._conditions)),
                    self._once("data", self._data_part),
                    self._once(("fold", fold), lambda fold=fold: self._fold_part(fold)),  # type: ignore[misc]
                    self._once(("params", model), lambda model=model: self._params_part(model)),  # type: ignore[misc]
                    self._once(("model", model, candidate), lambda leaf=leaf: self._model_part(leaf)),  # type: ignore[misc]
                )
            except Untrusted as error:
                keys[leaf.key] = ContentKey(None, str(error), description)
            else:
                keys[leaf.key] = ContentKey(digest(parts).hex(), "", description)
        return keys

    def _once(self, name: Any, encode: Callable[[], bytes]) -> bytes:
        part = self._parts.get(name)
        if part is None:
            try:
                part = encode()
            except Untrusted as error:
                part = error
            self._parts[name] = part
        if isinstance(part, Untrusted):
            raise part
        return part

    def _data_part(self) -> bytes:
        known = _data_digests.get(self._data)
        if known is None or known[0] != self._identity:
            with within("X"):
                X = self._encoder.encode(self._data.X)
            with within("y"):
                y = self._encoder.encode(self._data.y)
            known = _data_digests[self._data] = (self._identity, token("data", X, y))
        return known[1]

    def _fold_part(self, fold: int) -> bytes:
        if fold < 0:
            return token("refit")
        train, test = (np.asarray(indices, dtype=np.int64) for indices in self._data.splits[fold])
        return token("fold", self._encoder.encode((fold, train.tobytes(), test.tobytes())))

    def _params_part(self, model: str) -> bytes:
        plan = self._models[model]
        with within("the scorer"):
            scorer = self._scorer_part(plan.scorer)
        # what models have in common is the same object for all of them
        common = ("given", *(id(value) for value in (*plan.fit_params.values(), *plan.score_params.values())))
        given = self._once(
            (common, tuple(plan.fit_params), tuple(plan.score_params)),
            lambda: token(
                "given",
                self._encoder.named(plan.fit_params, "the parameter of fit"),
                self._encoder.named(plan.score_params, "the parameter of the scorer"),
            ),
        )
        return token("params", scorer, given, self._encoder.encode(plan.pairwise))

    def _scorer_part(self, scorer: Any) -> bytes:
        parts = []
        for name, part in sorted(_compat.scorers_of(scorer).items()):
            if _compat.returns_one_number(part) and hasattr(part, "_estimator"):
                encoded = token("own score")  # the estimator's; which one it is stands in the model's part
            else:
                encoded = self._encoder.encode(part)
            parts += [self._encoder.encode(name), encoded]
        return token("scorers", self._encoder.encode(_compat.is_multimetric(scorer)), *parts)

    def _model_part(self, leaf: Leaf) -> bytes:
        estimator = self._models[leaf.key.model].estimator
        if leaf.parameters:
            try:
                estimator = clone(estimator).set_params(**clone(dict(leaf.parameters), safe=False))
            except Exception as error:
                raise Untrusted(f"the parameters cannot be set ({error})") from error
        with within("the model"):
            return encode_estimator(self._encoder, estimator)


_data_digests: WeakKeyDictionary[Any, tuple[str, bytes]] = WeakKeyDictionary()


def _encode_conditions(encoder: Encoder, conditions: Conditions) -> bytes:
    config = {name: value for name, value in conditions.sklearn_config.items() if name not in NO_NUMBERS}
    with within("the configuration"):
        return encoder.encode(
            (
                MEANING,
                conditions.root_seed,
                conditions.inner_threads,
                conditions.return_train_score,
                sorted(config.items()),
                _raising(conditions.warning_filters),
                sorted(conditions.versions.items()),
                platform.machine(),
            )
        )


def _raising(filters: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return the filters where one of them raises; otherwise a warning changes no outcome."""
    if not any(action == "error" for action, *_ in filters):
        return []
    kept = ("error", "ignore")
    return [(action if action in kept else "always", *others) for action, *others in filters]


def encode_estimator(encoder: Encoder, value: Any) -> bytes:
    """Encode what a clone keeps of a value: of an estimator its class and parameters, else everything.

    Raises
    ------
    Untrusted
        If some of it has no content that could be compared.
    """
    kind = type(value)
    if kind in (list, tuple):
        return token(kind.__name__, *(encode_estimator(encoder, part) for part in value))
    if kind is dict:
        pairs = [(encoder.encode(name), encode_estimator(encoder, part)) for name, part in value.items()]
        return token("dict", *(part for pair in pairs for part in pair))
    if not _is_cloned_by_parameters(value):
        return encoder.encode(value)
    parts = [encoder.encode(kind)]
    for name, parameter in sorted(value.get_params(deep=False).items()):
        with within(f"{kind.__qualname__}.{name}"):
            parts += [encoder.encode(name), encode_estimator(encoder, parameter)]
    kept = ("_metadata_request", "_sklearn_output_config", "_skl_callbacks")
    more = {name: vars(value)[name] for name in kept if name in getattr(value, "__dict__", ())}
    return token("estimator", *parts, encoder.named(more, "attribute"))


def _is_cloned_by_parameters(value: Any) -> bool:
    if isinstance(value, type) or not hasattr(value, "get_params"):
        return False
    own = getattr(type(value), "__sklearn_clone__", None)
    return own is None or own is BaseEstimator.__sklearn_clone__
