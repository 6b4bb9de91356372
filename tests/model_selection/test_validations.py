"""The functions return what scikit-learn's return, to the last bit, on every backend."""

import inspect

import numpy as np
import pytest
from sklearn import model_selection as theirs
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import anyfold.model_selection as ours

X, y = load_iris(return_X_y=True)
MODEL = DecisionTreeClassifier(max_depth=3, random_state=0)

CALLS = {
    "cross_validate": {"cv": 4, "scoring": ["accuracy", "f1_macro"], "return_train_score": True},
    "cross_val_score": {"cv": ShuffleSplit(4, random_state=0)},
    "cross_val_predict": {"cv": 4, "method": "predict_proba"},
    "learning_curve": {"cv": 3, "train_sizes": [0.3, 1.0], "shuffle": True, "random_state": 0},
    "permutation_test_score": {"n_permutations": 5, "random_state": 0},
    "validation_curve": {"param_name": "max_depth", "param_range": [1, 2, 3], "cv": 3},
}


def flat(result):
    if isinstance(result, dict):
        return {name: value.tobytes() for name, value in result.items() if "time" not in name}
    if isinstance(result, tuple):
        return [np.asarray(part).tobytes() for part in result]
    return np.asarray(result).tobytes()


@pytest.mark.parametrize("backend", ["serial", "threads", "multiprocessing"])
@pytest.mark.parametrize("name", CALLS)
def test_a_function_returns_what_scikit_learns_returns(name, backend):
    expected = getattr(theirs, name)(MODEL, X, y, **CALLS[name])
    found = getattr(ours, name)(MODEL, X, y, **CALLS[name], backend=backend, n_jobs=2)
    assert type(found) is type(expected)
    assert flat(found) == flat(expected)


def test_estimators_and_indices_are_returned():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression())
    found = ours.cross_validate(
        pipeline, X, y, cv=3, return_estimator=True, return_indices=True, backend="multiprocessing", n_jobs=2
    )
    expected = theirs.cross_validate(pipeline, X, y, cv=3, return_estimator=True, return_indices=True)
    assert list(found) == list(expected)
    for own, other in zip(found["estimator"], expected["estimator"], strict=True):
        assert own[-1].coef_.tobytes() == other[-1].coef_.tobytes()
    for part in ("train", "test"):
        for own, other in zip(found["indices"][part], expected["indices"][part], strict=True):
            assert own.tolist() == other.tolist()


@pytest.mark.parametrize("name", CALLS)
def test_parameters_are_scikit_learns_and_ours(name):
    taken = inspect.signature(getattr(ours, name)).parameters
    assert list(taken)[: -len(ours.SETTINGS)] == list(inspect.signature(getattr(theirs, name)).parameters)
    assert tuple(taken)[-len(ours.SETTINGS) :] == ours.SETTINGS


def test_a_bad_parameter_is_named_as_scikit_learn_names_it():
    with pytest.raises(ValueError, match="The 'method' parameter of cross_val_predict must be"):
        ours.cross_val_predict(MODEL, X, y, method=3)
