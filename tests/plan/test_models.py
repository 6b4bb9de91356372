"""Models are named and checked before any work starts."""

import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from anyfold._plan.models import name_models
from anyfold.errors import InvalidInputError


def test_one_estimator_is_named_by_its_class():
    model = Ridge()
    assert name_models(model) == {"ridge": model}


def test_a_pipeline_is_one_model_though_it_can_be_iterated():
    assert list(name_models(make_pipeline(StandardScaler(), Ridge()))) == ["pipeline"]


def test_a_list_is_named_as_make_pipeline_names_steps():
    models = [Ridge(), LogisticRegression(), Ridge(alpha=2)]
    steps = make_pipeline(StandardScaler(), *models).steps[1:]
    assert list(name_models(models)) == [name for name, _ in steps]


def test_a_mapping_keeps_names_and_order():
    assert list(name_models({"b": Ridge(), "a": Ridge()})) == ["b", "a"]


def test_pairs_give_names():
    assert list(name_models([("x", Ridge()), ("y", Ridge())])) == ["x", "y"]


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ([], "models is empty"),
        ({}, "models is empty"),
        (3, "is no estimator: int 3 has no fit and no get_params"),
        ({"a": "ridge"}, "model 'a' is no estimator"),
        (Ridge, "model 'abcmeta' is the class Ridge, not an estimator: write Ridge()"),
        ({"a": Ridge}, "model 'a' is the class Ridge"),
        ({1: Ridge()}, "the name of a model must be text, not 1 (int)"),
        ([("a", Ridge()), ("a", Ridge())], "two models are named 'a'"),
        (None, "is no estimator"),
    ],
    ids=str,
)
def test_what_is_no_model_is_refused(models, message):
    with pytest.raises(InvalidInputError) as error:
        name_models(models)
    assert message in str(error.value)
