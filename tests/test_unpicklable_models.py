"""What cannot be sent to a worker is named, and costs nothing but itself."""

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import BaggingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import anyfold as af
from anyfold._data.serialize import dumps
from anyfold.errors import UnpicklableModelError
from anyfold.model_selection import GridSearchCV

X, y = load_iris(return_X_y=True)


class Source:
    """Stays in this process, but may be copied here."""

    def __reduce__(self):
        raise TypeError("a source stays here")

    def __deepcopy__(self, memo):
        return self


SOURCE = Source()


class Reads(DummyClassifier):
    def __init__(self, source=None):
        super().__init__()
        self.source = source


@pytest.mark.parametrize(
    ("models", "more", "culprit"),
    [
        ({"m": Reads(Source())}, {}, "parameter 'source', a Source, of model 'm'"),
        (
            {"m": make_pipeline(StandardScaler(), BaggingClassifier(Reads([Source()])))},
            {},
            "parameter 'baggingclassifier__estimator__source', a list, of model 'm'",
        ),
        (
            {"m": DummyClassifier()},
            {"scoring": lambda m, X, y, at=SOURCE: 0.0},
            "the scorer of model 'm'",
        ),
        ({"m": DummyClassifier()}, {"params": {"sample_weight": Source()}}, "params['sample_weight']"),
    ],
)
def test_what_cannot_be_sent_is_named_before_anything_runs(models, more, culprit):
    with pytest.raises(UnpicklableModelError) as caught:
        af.run_cv(models, af.Folds(X, y, cv=2), backend="multiprocessing", n_jobs=1, **more)
    expected = f"{culprit} cannot be sent to the workers of backend 'multiprocessing': a source stays here. "
    assert str(caught.value).startswith(expected)
    assert isinstance(caught.value, TypeError)


class Pickling(ThreadPoolExecutor):
    """Threads that are given only what could be sent to a process."""

    def __init__(self):
        super().__init__(1)
        self.refused = []

    def submit(self, fn, /, *args, **kwargs):
        leaves = args[2]
        try:
            dumps(leaves)
        except TypeError as error:
            self.refused.append(len(leaves))
            future = Future()
            future.set_exception(error)
            return future
        return super().submit(fn, *args, **kwargs)


def test_a_candidate_that_cannot_be_sent_costs_no_other_candidate():
    values = [*range(300), Source(), *range(301, 400)]
    with Pickling() as executor:
        search = GridSearchCV(Reads(), {"source": values}, cv=2, refit=False, backend=executor)
        with pytest.warns(Warning, match="fits failed|non-finite") as told:
            search.fit(X, y)
    assert max(executor.refused) > 1  # it was sent along with others
    assert np.flatnonzero(np.isnan(search.cv_results_["mean_test_score"])).tolist() == [300]
    message = (
        "parameter 'source' of model 'reads', candidate 301, fold 0 cannot be sent to a worker: a source"
    )
    assert any(message in str(warning.message) for warning in told)
