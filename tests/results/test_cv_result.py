"""A result shows every task, wherever and whenever it ran."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

from anyfold._plan.task import REFIT, Outcome, RelayedWarning, TaskKey
from anyfold.errors import AnyfoldError, InvalidInputError, UnreadableResultError, WorkerTraceback
from anyfold.results import CVResult, FailureRecord, WarningRecord

NAN = float("nan")
X, Y = make_classification(n_samples=90, n_features=5, random_state=0)
SPLITS = list(StratifiedKFold(3).split(X, Y))
MODELS = {"nb": GaussianNB(), "tree": DecisionTreeClassifier(random_state=0), "logit": LogisticRegression()}


def shuffled(items, seed=3):
    items = list(items)
    random.Random(seed).shuffle(items)
    return items


@pytest.mark.parametrize("scoring", [None, "roc_auc", ["roc_auc", "accuracy"]], ids=str)
@pytest.mark.parametrize("with_train", [False, True], ids=["test", "train"])
def test_a_model_s_results_are_those_of_cross_validate(make, scoring, with_train):
    result = make.cross_validated(
        MODELS, X, Y, SPLITS, scoring=scoring, with_train=with_train, with_estimator=True
    )
    for name, model in MODELS.items():
        expected = cross_validate(
            model, X, Y, cv=SPLITS, scoring=scoring, return_train_score=with_train, return_estimator=True
        )
        answer = result[name]
        assert list(answer) == list(expected)
        for key, value in expected.items():
            assert type(answer[key]) is type(value)
            if key.startswith(("test_", "train_")):
                assert answer[key].dtype == value.dtype
                np.testing.assert_array_equal(answer[key], value)
            elif key == "estimator":
                assert [type(one) for one in answer[key]] == [type(one) for one in value]
                assert all(
                    (a.predict(X) == b.predict(X)).all() for a, b in zip(answer[key], value, strict=True)
                )
            else:
                assert answer[key].dtype == value.dtype and answer[key].shape == value.shape


def test_scores_that_are_integers_stay_integers_as_in_cross_validate(make):
    def n_right(estimator, X, y):
        return int((estimator.predict(X) == y).sum())

    expected = cross_validate(GaussianNB(), X, Y, cv=SPLITS, scoring=n_right)["test_score"]
    answer = make.cross_validated({"nb": GaussianNB()}, X, Y, SPLITS, scoring=n_right)["nb"]["test_score"]
    assert answer.dtype == expected.dtype == np.dtype(int)
    np.testing.assert_array_equal(answer, expected)


@given(st.permutations(range(6)), st.sets(st.integers(0, 5), max_size=5))
def test_nothing_depends_on_the_order_of_arrival(order, absent):
    outcomes = [
        Outcome(
            TaskKey(model, 0, fold),
            _fold_scores(10 * row + fold),
            warnings=(RelayedWarning(UserWarning, f"{model} {fold}", "model.py", 1),),
        )
        for row, model in enumerate(["b", "a"])
        for fold in range(3)
    ]
    facts = {"models": ["b", "a"], "n_folds": 3, "metrics": ("score",), "splits": [(np.array([0]),) * 2] * 3}
    facts |= {"n_samples": 1, "error_score": NAN, "random_state": 0, "backend": "serial", "n_jobs": None}
    facts |= {"wall_time": 1.0, "return_train_score": False, "response_methods": ()}
    kept = [i for i in range(6) if i not in absent]
    ordered = CVResult([outcomes[i] for i in kept], **facts)
    result = CVResult([outcomes[i] for i in order if i not in absent], **facts)
    frame = result.to_frame()
    assert frame["model"].tolist() == ["b"] * 3 + ["a"] * 3
    assert frame["fold"].tolist() == [0, 1, 2] * 2
    expected = [NAN if i in absent else float(10 * (i // 3) + i % 3) for i in range(6)]
    np.testing.assert_array_equal(frame["score"], expected)
    assert result.missing == tuple((["b", "a"][i // 3], i % 3) for i in sorted(absent))
    pd.testing.assert_frame_equal(frame, ordered.to_frame())
    pd.testing.assert_frame_equal(result.summary(), ordered.summary())
    assert result.warnings == ordered.warnings
    assert repr(result) == repr(ordered)


def _fold_scores(score):
    from anyfold._plan.task import FoldScores

    return FoldScores({"score": float(score)}, None, 0.5, 0.25)


def test_the_tidy_frame_has_a_column_per_metric_and_exact_scores(make):
    third = 1 / 3
    outcomes = [
        make.outcome(model, fold, {"auc": third + fold, "acc": 0.1 * fold}, train={"auc": 1.0, "acc": 0.9})
        for model in ("rf", "logit")
        for fold in range(2)
    ]
    frame = make.result_of(
        shuffled(outcomes), models=["rf", "logit"], metrics=["auc", "acc"], return_train_score=True
    ).to_frame()
    assert list(frame.columns) == [
        "model", "fold", "auc", "acc", "train_auc", "train_acc", "fit_time", "score_time"
    ]  # fmt: skip
    assert frame["model"].tolist() == ["rf", "rf", "logit", "logit"]
    assert frame["auc"].tolist() == [third, third + 1] * 2
    assert frame["fit_time"].tolist() == [0.5, 1.5] * 2
    assert frame["train_acc"].tolist() == [0.9] * 4
    assert frame.index.tolist() == [0, 1, 2, 3]


def test_train_columns_appear_only_when_asked_for(make):
    outcomes = [make.outcome("rf", 0, {"score": 1.0}, train={"score": 2.0})]
    assert "train_score" not in make.result_of(outcomes).to_frame()
    assert "train_score" in make.result_of(outcomes, return_train_score=True).to_frame()


def test_the_summary_has_the_best_model_first(make):
    summary = make.scored(
        {"low": [0.1, 0.2], "high": [0.9, 0.7], "nan": [NAN, 1.0], "mid": [0.5, 0.5]}
    ).summary()
    assert summary.index.tolist() == ["high", "mid", "low", "nan"]
    assert summary.index.name == "model"
    assert list(summary.columns) == [("score", "mean"), ("score", "std"), ("score", "rank")]
    assert summary["score", "rank"].tolist() == [1, 2, 3, 4]
    assert summary["score", "mean"].tolist()[:3] == [np.mean([0.9, 0.7]), 0.5, np.mean([0.1, 0.2])]
    assert np.isnan(summary.loc["nan", ("score", "mean")])
    assert summary.loc["high", ("score", "std")] == np.std([0.9, 0.7])


def test_each_metric_has_its_own_rank_and_the_first_orders_the_summary(make):
    outcomes = [
        make.outcome("rf", 0, {"auc": 0.9, "acc": 0.1}, train={"auc": 1.0, "acc": 0.5}),
        make.outcome("nb", 0, {"auc": 0.8, "acc": 0.2}, train={"auc": 0.7, "acc": 0.4}),
    ]
    summary = make.result_of(outcomes, metrics=("auc", "acc"), return_train_score=True).summary()
    assert summary.index.tolist() == ["rf", "nb"]
    assert summary["acc", "rank"].tolist() == [2, 1]
    assert summary["train_auc", "mean"].tolist() == [1.0, 0.7]
    assert ("train_auc", "rank") not in summary


def test_models_of_equal_rank_stay_in_the_order_given(make):
    result = make.scored({"z": [0.5], "a": [0.5], "m": [0.75]})
    assert result.summary().index.tolist() == ["m", "z", "a"]
    assert result.summary()["score", "rank"].tolist() == [1, 2, 2]


def test_folds_that_never_ran_are_counted_and_not_averaged(make):
    outcomes = [make.outcome("rf", 0, {"score": 0.5}), make.outcome("rf", 2, {"score": 1.0})]
    outcomes += [make.outcome("nb", fold, {"score": 0.25}) for fold in range(3)]
    result = make.result_of(outcomes, models=["rf", "nb", "svc"], n_folds=3, interrupted=True)
    summary = result.summary()
    assert summary["n_folds"].to_dict() == {"rf": 2, "nb": 3, "svc": 0}
    assert summary.loc["rf", ("score", "mean")] == 0.75
    assert summary["score", "rank"].to_dict() == {"rf": 1, "nb": 2, "svc": 3}
    assert result.missing == (("rf", 1), ("svc", 0), ("svc", 1), ("svc", 2))
    np.testing.assert_array_equal(result["rf"]["test_score"], [0.5, NAN, 1.0])
    np.testing.assert_array_equal(result["rf"]["fit_time"], [0.5, NAN, 2.5])
    assert "4 of 9 tasks did not run" in repr(result)


def test_a_complete_run_has_no_column_that_counts_folds(make):
    assert "n_folds" not in make.scored({"rf": [0.5, 0.6]}).summary()


def test_a_failed_task_has_the_error_score_for_what_it_did_not_reach(make):
    whole = make.outcome("rf", 0, None, failure=make.failed())
    partly = make.outcome("rf", 1, {"auc": 0.75}, train=None, failure=make.failed())
    result = make.result_of(
        [partly, whole], metrics=("auc", "acc"), error_score=-1.0, return_train_score=True
    )
    frame = result.to_frame()
    assert frame["auc"].tolist() == [-1.0, 0.75]
    assert frame["acc"].tolist() == [-1.0, -1.0]
    assert frame["train_auc"].tolist() == [-1.0, -1.0]
    np.testing.assert_array_equal(frame["fit_time"], [NAN, 1.5])
    assert result.summary()["auc", "mean"].tolist() == [np.mean([-1.0, 0.75])]
    assert result.missing == ()


def test_a_task_that_succeeded_without_scores_is_an_error_not_a_number(make):
    result = make.result_of([make.outcome("rf", 0, None)])
    with pytest.raises(TypeError, match=r"model 'rf', fold 0 succeeded without test scores"):
        result.to_frame()


@pytest.mark.parametrize(
    "key",
    [TaskKey("other", 0, 0), TaskKey("rf", 1, 0), TaskKey("rf", 0, 9), TaskKey("rf", 0, REFIT)],
    ids=str,
)
def test_outcomes_of_other_tasks_are_refused(make, key):
    with pytest.raises(InvalidInputError, match="not among the tasks of this run"):
        make.result_of([Outcome(key)], models=["rf"], n_folds=2)


def test_two_outcomes_of_one_task_are_refused(make):
    twice = [make.outcome("rf", 0, {"score": 1.0}), make.outcome("rf", 0, {"score": 2.0})]
    with pytest.raises(InvalidInputError, match=r"model='rf'.*fold=0.* came twice"):
        make.result_of(twice)


def test_a_result_is_a_mapping_of_model_names(make):
    result = make.scored({"rf": [0.5], "logit": [0.75]})
    assert list(result) == ["rf", "logit"] == list(result.models)
    assert len(result) == 2
    assert "rf" in result and "svc" not in result and 3 not in result
    assert result.get("svc") is None
    assert dict(result)["logit"]["test_score"].tolist() == [0.75]
    assert result.n_folds == 1 and result.metrics == ("score",)
    assert result == result and result != make.scored({"rf": [0.5], "logit": [0.75]})
    assert hash(result) == hash(result)


@pytest.mark.parametrize(
    "ask", [lambda r: r["rff"], lambda r: r.estimators("rff"), lambda r: r.predictions("rff")]
)
def test_an_unknown_model_is_a_key_error_that_names_near_ones(make, ask):
    with pytest.raises(KeyError) as caught:
        ask(make.scored({"rf": [0.5], "logit": [0.75]}))
    assert str(caught.value) == "no model is named 'rff'; did you mean 'rf'?"
    assert isinstance(caught.value, AnyfoldError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_unknown_metric_names_what_there_is(make):
    with pytest.raises(InvalidInputError, match=r"no metric is named 'f1'; there are: 'score'"):
        make.scored({"rf": [0.5]}).scores("f1")
    with pytest.raises(InvalidInputError, match="return_train_score=True"):
        make.scored({"rf": [0.5]}).scores(train=True)


def test_the_facts_of_the_run_are_attributes_that_cannot_be_changed(make):
    result = make.scored({"rf": [0.5]}, backend="loky", n_jobs=3)
    facts = result.random_state, result.backend, result.n_jobs, result.wall_time, result.interrupted
    assert facts == (7, "loky", 3, 2.5, False)
    assert len(result.splits) == 1
    with pytest.raises(AttributeError):
        result.backend = "ray"


def test_the_best_model_has_the_highest_mean(make):
    assert make.scored({"a": [0.5], "b": [0.75]}).best_model == "b"
    assert make.scored({"a": [NAN], "b": [NAN]}).best_model is None


# ---- estimators ----------------------------------------------------------------------------------


def test_estimators_come_back_by_fold_with_none_where_there_is_none(make):
    outcomes = [
        make.outcome("nb", 0, {"score": NAN}, failure=make.failed()),
        make.outcome("nb", 3, {"score": 1.0}, payload={"estimator": "three"}),
        make.outcome("nb", 1, {"score": 1.0}, payload={"estimator": "one"}),
    ]
    result = make.result_of(shuffled(outcomes), n_folds=4)
    assert result.estimators("nb") == [None, "one", None, "three"]
    assert result["nb"]["estimator"] == [None, "one", None, "three"]


def test_estimators_are_unpickled_once_and_only_when_asked_for(make):
    unreadable = make.outcome("nb", 0, {"score": 1.0}, payload=b"not a pickle")
    assert make.result_of([unreadable]).to_frame()["score"].tolist() == [1.0]
    result = make.result_of([make.outcome("nb", 0, {"score": 1.0}, payload={"estimator": object()})])
    assert result.estimators("nb")[0] is result.estimators("nb")[0]
    assert result["nb"]["estimator"][0] is result.estimators("nb")[0]


def test_an_estimator_that_cannot_be_unpickled_is_named(make):
    good = make.outcome("nb", 0, {"score": 1.0}, payload={"estimator": 1})
    bad = make.outcome("nb", 1, {"score": 1.0}, payload=b"not a pickle")
    result = make.result_of([bad, good])
    with pytest.raises(UnreadableResultError, match=r"model 'nb', fold 1 cannot be unpickled") as caught:
        result.estimators("nb")
    assert isinstance(caught.value.__cause__, pickle.UnpicklingError)


def test_a_run_that_kept_no_estimators_says_how_to_keep_them(make):
    result = make.scored({"nb": [1.0]})
    assert "estimator" not in result["nb"]
    with pytest.raises(InvalidInputError, match="return_estimator=True"):
        result.estimators("nb")


# ---- failures and warnings -----------------------------------------------------------------------


def test_failures_stand_in_the_order_of_models_and_folds_with_all_that_is_known(make):
    original = ValueError("Input X contains NaN.")
    failures = [
        make.outcome("svc", 1, None, failure=make.failed("second")),
        make.outcome("svc", 0, {"score": NAN}, failure=make.failed("Input X contains NaN.", original)),
        make.outcome("rf", 1, {"score": NAN}, failure=make.failed("zeroth")),
        make.outcome("rf", 0, {"score": 1.0}),
    ]
    result = make.result_of(failures, models=["rf", "svc"], parameters={"svc": {"C": 10.0}})
    assert [(one.model, one.fold) for one in result.failures] == [("rf", 1), ("svc", 0), ("svc", 1)]
    record = result.failures[1]
    assert isinstance(record, FailureRecord)
    assert (record.stage, record.type, record.message) == ("fit", "ValueError", "Input X contains NaN.")
    assert record.parameters == {"C": 10.0} and result.failures[0].parameters == {}
    assert record.traceback == "Traceback: worker side"
    assert (
        repr(record) == "FailureRecord(model='svc', fold=0, stage='fit', ValueError: Input X contains NaN.)"
    )
    error = record.exception()
    assert type(error) is ValueError and error.args == original.args
    assert isinstance(error.__cause__, WorkerTraceback) and "worker side" in str(error.__cause__)
    assert "3 of 4 tasks failed" in repr(result)


def test_an_exception_that_could_not_be_pickled_is_still_told(make):
    (record,) = make.result_of([make.outcome("rf", 0, None, failure=make.failed())]).failures
    assert isinstance(record.exception(), WorkerTraceback)
    assert "worker side" in str(record.exception())


def test_an_exception_that_cannot_be_unpickled_is_named(make):
    record = FailureRecord("rf", 4, {}, "fit", "Odd", "odd", "tb", b"not a pickle")
    with pytest.raises(
        UnreadableResultError, match=r"the exception of model 'rf', fold 4 cannot be unpickled"
    ):
        record.exception()


def test_a_long_message_is_shortened_in_the_repr_and_kept_in_the_record():
    record = FailureRecord("rf", 0, {}, "fit", "ValueError", "first line\nsecond line" * 100, "tb")
    assert repr(record) == "FailureRecord(model='rf', fold=0, stage='fit', ValueError: first line …)"
    assert record.message.endswith("second line")


def test_warnings_make_a_table(make):
    told = [
        RelayedWarning(RuntimeWarning, "overflow", "model.py", 12),
        RelayedWarning(UserWarning, "odd", "m.py", 3),
    ]
    outcomes = [
        make.outcome("b", 0, {"score": 1.0}, warnings=told[1:]),
        make.outcome("a", 0, {"score": 1.0}, warnings=told),
    ]
    result = make.result_of(outcomes, models=["a", "b"])
    assert result.warnings == (
        WarningRecord("a", 0, RuntimeWarning, "overflow", "model.py", 12),
        WarningRecord("a", 0, UserWarning, "odd", "m.py", 3),
        WarningRecord("b", 0, UserWarning, "odd", "m.py", 3),
    )
    frame = pd.DataFrame(result.warnings)
    assert frame["message"].tolist() == ["overflow", "odd", "odd"]
    assert "3 warnings" in repr(result)


# ---- how it shows itself -------------------------------------------------------------------------


def test_the_repr_is_a_short_table_with_the_best_model_first(make):
    result = make.scored({"logit": [0.5, 0.75], "random forest": [0.75, 1.0]})
    assert repr(result).splitlines() == [
        "CVResult: 2 models on 2 folds, backend='serial', n_jobs=1, random_state=7, 2.5 s",
        "model                    score",
        "random forest  0.8750 ± 0.1250",
        "logit          0.6250 ± 0.1250",
    ]


def test_the_repr_of_many_models_stays_short(make):
    result = make.scored(
        {f"a-rather-long-prefix-of-all-models-{i:03d}-suffix": [i / 1000] for i in range(300)}
    )
    lines = repr(result).splitlines()
    assert len(lines) == 23
    assert "280 more models" in lines[-1]
    names = [line.split()[0] for line in lines[2:22]]
    assert len(set(names)) == 20 and "299" in names[0]


def test_the_html_repr_escapes_names(make):
    html = make.scored({"<script>": [0.5]})._repr_html_()
    assert "&lt;script&gt;" in html and "<script>" not in html
    assert html.count("<tr>") == 2 and "0.5000 ± 0.0000" in html


# ---- travelling ----------------------------------------------------------------------------------


def test_a_result_survives_pickling(make):
    result = make.cross_validated(MODELS, X, Y, SPLITS, methods=["predict"], with_estimator=True)
    result.estimators("nb")
    again = pickle.loads(pickle.dumps(result))
    assert again.to_frame().equals(result.to_frame())
    assert again.summary().equals(result.summary())
    assert repr(again) == repr(result)
    np.testing.assert_array_equal(again.predictions("tree"), result.predictions("tree"))
    assert len(again.estimators("logit")) == 3


def test_unpickled_objects_do_not_travel_a_second_time(make):
    result = make.result_of([make.outcome("rf", 0, {"score": 1.0}, payload={"estimator": np.zeros(10_000)})])
    before = len(pickle.dumps(result))
    result.estimators("rf")
    assert len(pickle.dumps(result)) == before


def test_importing_results_imports_neither_pandas_nor_matplotlib():
    code = "import sys, anyfold.results; print([m for m in ('pandas', 'matplotlib') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
