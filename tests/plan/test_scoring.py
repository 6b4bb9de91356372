"""Scoring is checked before any work starts, but never refused on suspicion."""

import pytest
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from anyfold._plan.scoring import check_response_methods, make_scorer_for, metric_names, response_methods
from anyfold.errors import InvalidInputError


def scorer(scoring, model=None):
    return make_scorer_for("m", model or LogisticRegression(), scoring, raise_errors=False)


@pytest.mark.parametrize(
    ("scoring", "names"),
    [
        (None, ("score",)),
        ("accuracy", ("score",)),
        (make_scorer(accuracy_score), ("score",)),
        (["accuracy", "roc_auc"], ("accuracy", "roc_auc")),
        (("accuracy",), ("accuracy",)),
        ({"a": "accuracy", "b": make_scorer(accuracy_score)}, ("a", "b")),
        (lambda estimator, X, y: {"x": 1.0}, None),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_every_form_that_scikit_learn_takes_is_a_scorer(scoring, names):
    assert metric_names(scorer(scoring)) == names


@pytest.mark.parametrize("scoring", ["acuracy", ["acuracy"], {"a": "acuracy"}], ids=str)
def test_a_scorer_that_does_not_exist_names_the_near_one(scoring):
    with pytest.raises(InvalidInputError, match="no scorer 'acuracy' \\(did you mean 'accuracy'\\?\\)"):
        scorer(scoring)


def test_a_metric_is_not_a_scorer():
    with pytest.raises(InvalidInputError, match="make_scorer"):
        scorer(accuracy_score)


@pytest.mark.parametrize("scoring", ["neg_log_loss", ["accuracy", "neg_log_loss"]], ids=str)
@pytest.mark.parametrize("model", [SVC(), make_pipeline(StandardScaler(), SVC())], ids=["svc", "pipeline"])
def test_a_scorer_that_needs_what_the_model_lacks_is_refused(scoring, model):
    with pytest.raises(InvalidInputError, match=r"'m' .* does not have") as error:
        scorer(scoring, model)
    assert "predict_proba" in str(error.value)


@pytest.mark.parametrize(
    "model",
    [
        StackingClassifier([("a", LogisticRegression())]),
        GridSearchCV(LogisticRegression(), {"C": [1]}),
        make_pipeline(StandardScaler(), GridSearchCV(SVC(), {"probability": [True]})),
    ],
    ids=["stacking", "search", "search in pipeline"],
)
def test_what_only_fit_can_tell_is_not_refused(model):
    scorer("neg_log_loss", model)
    check_response_methods("m", model, ("predict_proba",))


def test_a_model_without_score_needs_scoring():
    with pytest.raises(InvalidInputError, match="score"):
        scorer(None, StandardScaler())


@pytest.mark.parametrize(
    ("given", "methods"),
    [
        (False, ()),
        (None, ()),
        (True, ("predict",)),
        ("predict_proba", ("predict_proba",)),
        (["predict", "decision_function"], ("predict", "decision_function")),
    ],
    ids=str,
)
def test_predictions_are_asked_for_by_method(given, methods):
    assert response_methods(given) == methods


def test_an_unknown_response_method_names_the_near_one():
    with pytest.raises(InvalidInputError, match="did you mean 'predict_proba'"):
        response_methods("predict_probas")
    with pytest.raises(InvalidInputError, match="no predict_proba"):
        check_response_methods("m", Ridge(), ("predict_proba",))
