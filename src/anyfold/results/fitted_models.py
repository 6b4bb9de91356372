"""What `anyfold.fit_models` returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from anyfold._data.memory import format_bytes
from anyfold._plan.task import REFIT, FitCost, Outcome, TaskKey
from anyfold.errors import ModelFailedError
from anyfold.results.display import table_as_html, table_as_text
from anyfold.results.lookup import check_model
from anyfold.results.payload import load
from anyfold.results.records import (
    FailureRecord,
    LoggedRecord,
    OutputRecord,
    WarningRecord,
    failures_of,
    logs_of,
    output_of,
    warnings_of,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FittedModels"]

MOST_MODELS = 20


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FittedModels(Mapping[str, Any]):
    """Fitted models by name, and what each took.

    A mapping that holds the models that were fitted; `anyfold.fit_models` makes it::

        fitted = anyfold.fit_models(models, X, y)
        fitted["rf"].predict(X_new)
        fitted.to_frame()          # what each took
        fitted.failures            # those that failed

    A model that failed is not in the mapping and stands in `failures`; one that never ran, because the run
    was interrupted, stands in `missing`. Asking for either raises `ModelFailedError`, with the original
    error as its cause; any other name raises `UnknownModelError`. Models are unpickled when they are first
    asked for; `UnreadableResultError` names one that cannot be.

    Parameters
    ----------
    outcomes : iterable of Outcome
        What became of the models, in any order; those that never ran are absent.
    models : tuple of str
        Names of all models, in the order in which they were given.
    random_state : int
        Root of all seeds of the run.
    backend, n_jobs : str, int or None
        Where the models were fitted, and on how many workers.
    wall_time : float
        Seconds that the run took.
    parameters : mapping, default={}
        Parameters of each model, for the records of failures.
    interrupted : bool, default=False
        Whether the run was ended before all models had been fitted.
    choice : str or None, default=None
        With ``backend="auto"``, which models were fitted where, and why.

    Examples
    --------
    >>> import anyfold as af
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.dummy import DummyClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> models = {"first": DummyClassifier(), "all": DummyClassifier(strategy="uniform")}
    >>> fitted = af.fit_models(models, X, y, random_state=0, backend="serial")
    >>> list(fitted), fitted["first"].predict(X[:2]).tolist()
    (['first', 'all'], [0, 0])
    """

    outcomes: InitVar[Iterable[Outcome]] = field(kw_only=False)
    models: Sequence[str]
    random_state: int
    backend: str
    n_jobs: int | None
    wall_time: float
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    interrupted: bool = False
    choice: str | None = None
    _outcomes: dict[str, Outcome] = field(init=False)
    _sizes: dict[str, int] = field(init=False)
    """Bytes of the models that were fitted, pickled."""
    _pickled: dict[str, bytes] = field(init=False)
    """Models that nobody has asked for yet."""
    _loaded: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self, outcomes: Iterable[Outcome]) -> None:
        arrived = {outcome.key.model: outcome for outcome in outcomes}
        by_name = {name: arrived[name] for name in self.models if name in arrived}
        pickled = {
            name: outcome.payload
            for name, outcome in by_name.items()
            if outcome.payload is not None and outcome.failure is None
        }
        object.__setattr__(self, "models", tuple(self.models))
        kept = {name: replace(outcome, payload=None) for name, outcome in by_name.items()}
        object.__setattr__(self, "_outcomes", kept)
        object.__setattr__(self, "_pickled", pickled)
        object.__setattr__(self, "_sizes", {name: len(data) for name, data in pickled.items()})

    def __getitem__(self, name: str) -> Any:
        """Return a fitted model, the same object at each call."""
        check_model(name, self.models)
        if name not in self._loaded:
            if name not in self._sizes:
                raise self._why_not(name)
            if (pickled := self._pickled.get(name)) is not None:  # or another thread has just read it
                extras = load(pickled, "model", TaskKey(name, 0, REFIT))
                self._loaded.setdefault(name, extras["estimator"])
                self._pickled.pop(name, None)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, name: object) -> bool:
        return name in self._sizes

    # A mapping would compare its values, and estimators have no equality of their own.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @cached_property
    def failures(self) -> tuple[FailureRecord, ...]:
        """Models that failed, in the order in which they were given."""
        told = (
            failures_of(outcome, self.parameters.get(name, {})) for name, outcome in self._outcomes.items()
        )
        return tuple(record for records in told for record in records)

    @cached_property
    def warnings(self) -> tuple[WarningRecord, ...]:
        """Warnings that models issued, in the order in which they were given."""
        return tuple(record for outcome in self._outcomes.values() for record in warnings_of(outcome))

    @cached_property
    def logs(self) -> tuple[LoggedRecord, ...]:
        """What models logged at the levels that the caller had set, in the order in which they were given."""
        return tuple(record for outcome in self._outcomes.values() for record in logs_of(outcome))

    @cached_property
    def output(self) -> tuple[OutputRecord, ...]:
        """What models printed, in the order in which they were given."""
        return tuple(record for outcome in self._outcomes.values() for record in output_of(outcome))

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the models that never ran."""
        return tuple(name for name in self.models if name not in self._outcomes)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per model, in the order in which they were given, with what each took.

        Returns
        -------
        DataFrame
            Columns ``model``; ``status``: ``"fitted"``, ``"failed"`` or ``"missing"``; ``data_time`` and
            ``fit_time`` in seconds: until the data was there, and of ``fit`` alone; ``peak_memory`` in bytes:
            by how much the worker's resident memory grew at most while the data was made and the model
            fitted, without what it read of shared data, NaN where workers are not processes of their own or
            the system does not tell (it does on Linux); ``model_size`` in bytes: of the pickled model;
            ``worker``: process id.
        """
        import pandas as pd

        costs = [self._cost(name) for name in self.models]
        return pd.DataFrame(
            {
                "model": list(self.models),
                "status": [self._status(name) for name in self.models],
                "data_time": [cost.data_time for cost in costs],
                "fit_time": [cost.fit_time for cost in costs],
                "peak_memory": [cost.peak_memory for cost in costs],
                "model_size": pd.array([self._size(name) for name in self.models], dtype="Int64"),
                "worker": pd.array([self._worker(name) for name in self.models], dtype="Int64"),
            }
        )

    def _status(self, name: str) -> str:
        if name in self._sizes:
            return "fitted"
        return "failed" if name in self._outcomes else "missing"

    def _cost(self, name: str) -> FitCost:
        outcome = self._outcomes.get(name)
        if outcome is None or outcome.value is None:
            return FitCost(float("nan"), float("nan"), float("nan"))
        cost: FitCost = outcome.value
        return cost

    def _size(self, name: str) -> int | None:
        return self._sizes.get(name)

    def _worker(self, name: str) -> int | None:
        outcome = self._outcomes.get(name)
        return None if outcome is None or outcome.place is None else outcome.place.pid

    def _why_not(self, name: str) -> ModelFailedError:
        failure = next((failure for failure in self.failures if failure.model == name), None)
        if failure is None:
            return ModelFailedError(f"model {name!r} was not fitted: the run ended before its turn")
        error = ModelFailedError(
            f"model {name!r} was not fitted: {failure.type} in {failure.stage}: {failure.message}"
        )
        error.__cause__ = failure.exception()
        return error

    def __repr__(self) -> str:
        return table_as_text(self._headline(), *self._table(), self._remarks())

    def _repr_html_(self) -> str:
        return table_as_html(self._headline(), *self._table(), self._remarks())

    def _headline(self) -> str:
        jobs = "" if self.n_jobs is None else f", n_jobs={self.n_jobs}"
        return (
            f"FittedModels: {len(self)} of {len(self.models)} models, backend={self.backend!r}{jobs}, "
            f"random_state={self.random_state}, {self.wall_time:.3g} s"
        )

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = []
        for name in self.models[:MOST_MODELS]:
            cost, size = self._cost(name), self._size(name)
            known = cost.peak_memory == cost.peak_memory
            rows.append(
                [
                    name,
                    self._status(name),
                    "" if size is None else f"{cost.fit_time:.3g} s",
                    format_bytes(int(cost.peak_memory)) if known else "",
                    "" if size is None else format_bytes(size),
                ]
            )
        return ["model", "status", "fit_time", "peak_memory", "model_size"], rows

    def _remarks(self) -> list[str]:
        remarks = []
        if len(self.models) > MOST_MODELS:
            remarks.append(f"… and {len(self.models) - MOST_MODELS} more models: to_frame() has all")
        if self.interrupted or self.missing:
            why = "interrupted: " if self.interrupted else ""
            remarks.append(f"{why}{len(self.missing)} of {len(self.models)} did not run; see .missing")
        if self.failures:
            remarks.append(f"{len(self.failures)} of {len(self.models)} failed; see .failures")
        if self.warnings:
            n = len(self.warnings)
            remarks.append(f"{n} warning{'s' * (n > 1)}; see .warnings")
        return remarks
