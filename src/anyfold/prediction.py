"""`predict_partitions` and `predict_models`: what fitted models answer, on any backend."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Unpack

from anyfold._data.rows import BLOCK, cut_evenly, put_together, rows_of, sliceable
from anyfold._data.serialize import loads
from anyfold._data.sizes import nbytes_of
from anyfold._engine.sharing import Direct
from anyfold._plan.questions import check_columns, check_method, count_rows
from anyfold._plan.seeds import root_seed
from anyfold._plan.splitting import (
    FEW_ROWS,
    FIRST_LOOK,
    SECOND_LOOK,
    WORTH_SPLITTING,
    CallCost,
    Look,
    Outlook,
    is_worth_a_look,
    numbers_kept,
    partitions_worth,
)
from anyfold._plan.task import Leaf, Outcome, TaskKey
from anyfold._reply import exception_of
from anyfold._running import Prepared, run_work
from anyfold._session import (
    Workers,
    check_resources,
    expected_workers,
    open_workers,
    refuse_journal,
    share_data,
    share_model,
)
from anyfold._worker.execute import inherited_seed
from anyfold._worker.predictions import Asked, PartKey, Predictions
from anyfold.errors import AnyfoldError, InvalidInputError, TimeLimitError
from anyfold.executors.base import Shared, isolation_of
from anyfold.results.model_columns import frame_of_models
from anyfold.settings import Resolved, Settings, resolve, with_settings_signature

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["predict_models", "predict_partitions"]

NO_JOURNAL = "a journal keeps scores, no predictions; save those yourself"


@with_settings_signature
def predict_partitions(
    model: Any,
    X: Any,
    *,
    method: str = "predict",
    n_partitions: int | None = None,
    **settings: Unpack[Settings],
) -> Any:
    """Have one fitted model answer for partitions of the rows in parallel.

    The answer is the model's own, ``getattr(model, method)(X)``: same type, order of rows, index, numbers.

    Input that is not worth it is not split: the model is called here, as if anyfold were not there. That is
    so below 131 072 rows (2 048 where the model keeps so many numbers that each row takes long, as
    neighbours and support vectors do). Beyond that some of the rows are tried here first, and rows are
    split where that is clearly faster, the start of workers included. With `n_partitions`, and where
    `timeout`, `time_limit` or `resources` are set, which need workers, nothing is tried.

    Parameters
    ----------
    model : object
        Fitted; it is sent to the workers once.
    X : array-like of shape (n_samples, ...), or a list of n_samples items
        Arrays of any order and dtype, sparse matrices, pandas and polars frames, lists. Sent once.
    method : str, default="predict"
        Name of the method: ``predict``, ``predict_proba``, ``decision_function``, ``transform``,
        ``score_samples``, or any other that answers each row by itself.
    n_partitions : int, default=None
        How many partitions to make; None decides, see above.
    **settings : Settings
        How to run; ``resources`` names the model by its class in lower case. The argument ``journal`` is
        refused: it keeps no predictions.

    Returns
    -------
    object
        What the method returns for all of X.

    Raises
    ------
    InvalidInputError
        If the model has no such method, or does not answer each row by itself.
    InvalidSettingError
        If a setting cannot be used.
    UnsupportedFeatureError
        If the backend cannot do what a setting asks for, or if a ``journal`` is given.
    UnpicklableModelError
        If a model or X cannot be sent to worker processes.
    TimeLimitError
        If ``time_limit`` was over before all rows had been answered; its attribute ``result`` has what had
        been, by model and number of the partition.
    Exception
        What the model raises, with a note naming the partition.
    KeyboardInterrupt
        On Ctrl-C, with the same attribute ``result``.

    Notes
    -----
    Numbers are equal to the last bit at equal numbers of threads (``inner_threads``) as long as the method
    computes each row by itself. Matrix products sum a row in an order that depends on where it lies in a
    block; partitions therefore begin at multiples of 256 rows, which leaves each row where it was in its
    block. With so many `n_partitions` that some have fewer rows than that, last bits can differ. A method
    that draws random numbers, or uses several rows for one answer, gives other numbers in parts.

    Examples
    --------
    >>> import anyfold as af
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> tree = DecisionTreeClassifier(random_state=0).fit(X, y)
    >>> proba = af.predict_partitions(tree, X, method="predict_proba", n_partitions=3, backend="threads")
    >>> bool((proba == tree.predict_proba(X)).all())
    True
    """
    resolved = resolve(settings, caller=predict_partitions)
    refuse_journal(resolved, NO_JOURNAL)
    name = type(model).__name__.lower()
    call = check_method(name, model, method)
    n_rows = count_rows(X)
    check_resources(resolved, [name])
    outlook = expected_workers(resolved)
    if n_partitions is None:
        n_partitions = _n_partitions(model, call, X, n_rows, resolved, outlook)
        if n_partitions is None:
            return call(X)
    elif isinstance(n_partitions, bool) or not isinstance(n_partitions, Integral) or n_partitions < 1:
        raise InvalidInputError(
            f"n_partitions={n_partitions!r}: allowed are integers of at least 1, and None"
        )
    X = sliceable(X)
    partitions = cut_evenly(0, n_rows, int(n_partitions))
    keys = [PartKey(name, 0, position) for position in range(len(partitions))]
    with open_workers(resolved) as workers:
        shared = _shared_model(name, model, workers)
        asked = ((key, Asked(shared, rows)) for key, rows in zip(keys, partitions, strict=True))
        outcomes = _ask(keys, asked, X, method, workers, resolved)
    return put_together([_answer(outcomes[key]) for key in keys], partitions, X)


@with_settings_signature
def predict_models(
    models: Mapping[str, Any],
    X: Any,
    *,
    columns: Mapping[str, Any] | None = None,
    method: str = "predict",
    **settings: Unpack[Settings],
) -> pd.DataFrame:
    """Have several fitted models answer for the same rows in parallel, each from its own columns.

    Parameters
    ----------
    models : mapping of str to object
        Fitted models, such as what `anyfold.fit_models` returns. Each is sent to one worker.
    X : array-like of shape (n_samples, n_features), or a list of n_samples items
        Arrays, sparse matrices, pandas and polars frames, lists; sent once.
    columns : mapping of str to object, default=None
        By the name of a model, the columns that it is given: names, positions, a slice or a mask, as
        scikit-learn's `ColumnTransformer` takes them; a single name gives the column itself instead of a
        table. A model that is not named is given all of X.
    method : str, default="predict"
        Name of the method of all models.
    **settings : Settings
        How to run. The argument ``journal`` is refused: it keeps no predictions.

    Returns
    -------
    DataFrame
        One row per row of X, with its index where X is of pandas, and one column per model. Where a model's
        answer has columns of its own, there are several levels of columns: the model; then the class, for
        a model with ``classes_`` as many, or the column's name or number; and between them the number of
        the output, where the model answers with a list of arrays, one per output.

    Raises
    ------
    InvalidInputError
        If a model has no such method, if columns are given to a model that there is not, or if an
        answer does not have one entry per row.
    InvalidSettingError
        If a setting cannot be used.
    UnsupportedFeatureError
        If the backend cannot do what a setting asks for, or if a ``journal`` is given.
    UnpicklableModelError
        If a model or X cannot be sent to worker processes.
    TimeLimitError
        If ``time_limit`` was over before all models had answered; its attribute ``result`` has the answers of
        those that had, by model and 0.
    Exception
        What the first model raises that fails, with a note naming it.
    KeyboardInterrupt
        On Ctrl-C, with the same attribute ``result``.

    Examples
    --------
    >>> import anyfold as af
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LinearRegression
    >>> iris = load_iris(as_frame=True).frame
    >>> sepal, petal = iris.columns[:2], iris.columns[2:4]
    >>> models = {
    ...     "from sepal": LinearRegression().fit(iris[sepal], iris["target"]),
    ...     "from petal": LinearRegression().fit(iris[petal], iris["target"]),
    ... }
    >>> columns = {"from sepal": sepal, "from petal": petal}
    >>> af.predict_models(models, iris, columns=columns, backend="serial").head(2).round(2)
       from sepal  from petal
    0        0.17       -0.05
    1        0.34       -0.05
    """
    resolved = resolve(settings, caller=predict_models)
    refuse_journal(resolved, NO_JOURNAL)
    if not isinstance(models, Mapping) or not models:
        raise InvalidInputError(
            f"models is {type(models).__name__}, not a mapping from names to fitted models"
            if not isinstance(models, Mapping)
            else "models is empty: there is nothing to predict with"
        )
    wanted = check_columns(columns, models)
    for name in models:
        check_method(name, models[name], method)
    n_rows = count_rows(X)
    check_resources(resolved, list(models))
    keys = [PartKey(name, 0, 0) for name in models]
    with open_workers(resolved) as workers:
        asked = (
            (key, Asked(_shared_model(key.model, models[key.model], workers), None, wanted.get(key.model)))
            for key in keys
        )
        outcomes = _ask(keys, asked, X, method, workers, resolved)
    answers = {key.model: _answer(outcomes[key]) for key in keys}
    return frame_of_models(answers, models, n_rows, getattr(X, "index", None))


def _n_partitions(
    model: Any,
    call: Callable[[Any], Any],
    X: Any,
    n_rows: int,
    settings: Resolved,
    outlook: Outlook,
) -> int | None:
    """Decide into how many partitions to split; None to let the model do it by itself, here."""
    if settings.timeout is not None or settings.time_limit is not None or settings.resources:
        return max(1, min(n_rows // BLOCK, outlook.n_workers()))
    if n_rows < FEW_ROWS or (not outlook.takes_long and outlook.n_workers() < 2):
        return None
    n_numbers = numbers_kept(model)
    if not is_worth_a_look(n_rows, n_numbers):
        return None
    X = sliceable(X)
    first = _look(call, X, n_rows // FIRST_LOOK)
    if first.seconds * FIRST_LOOK < WORTH_SPLITTING:
        return None
    cost = CallCost.of(first, _look(call, X, n_rows // SECOND_LOOK))
    n_bytes = nbytes_of(X) + 8 * n_numbers
    return partitions_worth(cost, n_rows, n_bytes, outlook, settings.inner_threads)


def _look(call: Callable[[Any], Any], X: Any, n_rows: int) -> Look:
    """Measure a call for the first rows."""
    part = rows_of(X, (0, n_rows))
    wall, cpu = perf_counter(), process_time()
    with warnings.catch_warnings(action="ignore"):  # they are issued where it counts
        call(part)
    return Look(n_rows, perf_counter() - wall, process_time() - cpu)


def _ask(
    keys: Sequence[TaskKey],
    asked: Iterable[tuple[TaskKey, Asked]],
    X: Any,
    method: str,
    workers: Workers,
    settings: Resolved,
) -> Mapping[TaskKey, Outcome]:
    """Have all questions answered; raise what the first one that failed has raised."""
    outcomes: dict[TaskKey, Outcome] = {}
    given = settings.random_state
    shared = share_data(workers, X, "X")
    try:
        run_work(
            lambda _: Prepared(
                Predictions(shared, method), (Leaf(key, {"asked": each}) for key, each in asked), len(keys)
            ),
            workers=workers,
            settings=settings,
            root_seed=root_seed(inherited_seed() if given is None else given),
            stop_on_failure=True,
            outcomes=outcomes,
            record=None,
            rank={key: position for position, key in enumerate(keys)},
            returns_partly=False,
        )
    except KeyboardInterrupt as interrupt:
        interrupt.result = _finished(outcomes)  # type: ignore[attr-defined]
        raise
    finally:
        shared.release()
    for key in keys:
        if (outcome := outcomes.get(key)) is None:
            late = TimeLimitError(
                f"time_limit={settings.time_limit:g} seconds were over when {len(outcomes)} of {len(keys)} "
                f"tasks had finished; the first that had not is {key}"
            )
            late.result = _finished(outcomes)
            raise late
        if outcome.failure is not None:
            error = exception_of(outcome.failure)
            if not isinstance(error, Exception):  # SystemExit would end the caller's program without a word
                told = AnyfoldError(f"a model raised {error!r}, which is no Exception")
                told.__cause__ = error
                error = told
            error.add_note(f"raised in {method} of {key}")
            raise error
    return outcomes


def _finished(outcomes: Mapping[TaskKey, Outcome]) -> dict[tuple[str, int], Any]:
    """Return the answers that there are, by model and partition."""
    return {
        (key.model, key.fold): _answer(outcome)
        for key, outcome in sorted(outcomes.items())
        if outcome.payload is not None
    }


def _answer(outcome: Outcome) -> Any:
    assert outcome.payload is not None
    return loads(outcome.payload)["value"]


def _shared_model(name: str, model: Any, workers: Workers) -> Shared[Any]:
    # In the caller's own process a model is used as it is, as its own call would.
    if isolation_of(workers.executor) != "process":
        return Direct(model)
    return share_model(workers, model, name)
