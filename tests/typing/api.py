"""The public API as a user writes it; type-checked, never run."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from sklearn.linear_model import LogisticRegression

import anyfold as af
from anyfold.events import Event, TaskFinished
from anyfold.model_selection import GridSearchCV
from anyfold.results import plot_search

X = np.zeros((10, 2))
y = np.zeros(10)

folds: af.Folds = af.Folds(X, y, cv=3, stratify=False)
splits: int = folds.n_splits

result: af.CVResult = af.run_cv({"logit": LogisticRegression()}, folds)
result = af.run_cv(
    [LogisticRegression()],
    folds,
    scoring=["roc_auc"],
    params={"sample_weight": y},
    return_train_score=True,
    return_estimator=True,
    return_predictions=["predict_proba"],
    error_score="raise",
    random_state=0,
    backend="loky",
    n_jobs=2,
    inner_threads=1,
    retries=0,
    progress=False,
    backend_options={},
)
result = af.run_cv(LogisticRegression(), folds, backend=ThreadPoolExecutor(2))
af.run_cv(LogisticRegression(), folds, n_job=2)  # type: ignore[call-arg]

summary: pd.DataFrame = result.summary()
frame: pd.DataFrame = result.to_frame()

with af.get_executor("multiprocessing", n_jobs=2) as executor:
    af.run_cv(LogisticRegression(), folds, backend=executor)

with af.config_context(backend="threads", n_jobs=-1):
    af.get_config()
af.set_config(retries=1)
af.shutdown()

squares: list[int] = af.parallel_map(len, ["a", "bc"], backend="loky", n_jobs=2)
powers: list[int] = af.parallel_starmap(len, [("a",), ("bc",)], random_state=0)
one_by_one: Iterator[int] = af.parallel_map(len, iter("abc"), return_as="generator")
af.parallel_map(len, ["a"], n_job=2)  # type: ignore[call-overload]

fitted: af.FittedModels = af.fit_models({"logit": LogisticRegression()}, X, y, random_state=0, n_jobs=2)
fitted = af.fit_models(LogisticRegression(), data={"mon": (X, y), "tue": lambda: (X, y)}, on_error="raise")
fitted["logit"].predict(X)
costs: pd.DataFrame = fitted.to_frame()
af.fit_models(LogisticRegression(), X, y, n_job=2)  # type: ignore[call-arg]
predictions: np.ndarray = af.predict_partitions(fitted["logit"], X, method="predict_proba", n_partitions=2)
answers: pd.DataFrame = af.predict_models(fitted, X, columns={"logit": [0, 1]}, backend="threads")

compared: pd.DataFrame = result.compare("logit", metric="score")
slowest: pd.DataFrame = result.slowest(3)
result.save("result.npz")
loaded: af.CVResult = af.CVResult.load("result.npz")
drawn: Axes = plot_search(GridSearchCV(LogisticRegression(), {}), ["C"], metric="score")


def note(event: Event) -> None:
    if isinstance(event, TaskFinished):
        print(event.outcome.key.model, event.outcome.ended)


af.run_cv(LogisticRegression(), folds, callbacks=[note], progress=False)
