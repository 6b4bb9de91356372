"""Paired differences, the slowest tasks, and what a result says of its journal."""

import numpy as np
import pytest
from scipy import stats

from anyfold._plan.content import JournalUse
from anyfold._plan.task import Place, TaskKey
from anyfold.errors import UnknownModelError

NAN = float("nan")


# ---- comparison ----------------------------------------------------------------------------------


def splits(n_folds, n_train, n_test):
    return [(np.arange(n_train), np.arange(n_test))] * n_folds


def test_models_are_compared_with_the_best_fold_by_fold(make):
    table = {"low": [0.5, 0.25, 0.5], "best": [1.0, 0.75, 0.75], "near": [0.75, 0.75, 0.75]}
    frame = make.scored(table, splits=splits(3, 10, 5)).compare()
    assert frame.index.tolist() == ["near", "low"]
    assert frame["difference"].tolist() == [-0.25 / 3, -1.25 / 3]
    assert frame["n_folds"].tolist() == [3, 3]


def test_models_are_compared_with_the_best_by_the_metric_that_is_asked_for(make):
    scores = {"a": {"auc": 0.9, "acc": 0.5}, "b": {"auc": 0.8, "acc": 0.75}}
    outcomes = [make.outcome(model, fold, scores[model]) for model in scores for fold in (0, 1)]
    result = make.result_of(outcomes, metrics=("auc", "acc"))
    assert result.compare().index.tolist() == ["b"]
    assert result.compare(metric="acc")["difference"].to_dict() == {"a": -0.25}


def test_the_test_is_that_of_nadeau_and_bengio(make):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 10))
    frame = make.scored({"a": a, "b": b}, splits=splits(10, 90, 10)).compare("b")
    d = a - b
    # As scikit-learn's example "Statistical comparison of models using grid search" computes it.
    corrected_std = np.sqrt(np.var(d, ddof=1) * (1 / 10 + 10 / 90))
    t = np.mean(d) / corrected_std
    margin = stats.t(9).ppf(0.975) * corrected_std
    row = frame.loc["a"]
    assert row["t"] == pytest.approx(t, rel=1e-12)
    assert row["p_value"] == pytest.approx(2 * stats.t.sf(abs(t), 9), rel=1e-12)
    assert (row["low"], row["high"]) == pytest.approx((d.mean() - margin, d.mean() + margin), rel=1e-12)
    # Without the correction it is the paired t-test, which is far more certain.
    assert abs(t) < abs(stats.ttest_rel(a, b).statistic)


def test_only_folds_count_that_both_have_a_score_on(make):
    frame = make.scored({"a": [1.0, NAN, 0.5, 0.5], "b": [0.5, 0.5, NAN, 0.5], "c": [NAN] * 4}).compare("a")
    assert frame.loc["b", ["difference", "n_folds"]].tolist() == [-0.25, 2]
    assert frame.loc["c", "n_folds"] == 0
    assert frame.loc["c", ["difference", "t", "p_value", "p_adjusted"]].isna().all()


def test_equal_models_are_equal_and_constant_differences_certain(make):
    frame = make.scored({"a": [0.5, 0.25], "same": [0.5, 0.25], "less": [0.25, 0.0]}).compare("a")
    assert frame.loc["same", ["difference", "t", "p_value"]].tolist() == [0, 0, 1]
    assert frame.loc["less", ["difference", "t", "p_value"]].tolist() == [-0.25, -np.inf, 0]


def test_many_comparisons_are_adjusted_together(make):
    rng = np.random.default_rng(1)
    frame = make.scored({str(i): rng.normal(size=5) for i in range(6)}).compare()
    by_p = frame.sort_values("p_value")
    expected = np.minimum(1, np.maximum.accumulate(by_p["p_value"] * np.arange(5, 0, -1)))
    assert by_p["p_adjusted"].tolist() == pytest.approx(expected.tolist())


def test_the_baseline_is_a_model_of_the_result(make):
    result = make.scored({"rf": [0.5], "nb": [0.25]})
    assert result.compare("nb").index.tolist() == ["rf"]
    with pytest.raises(UnknownModelError, match="did you mean 'rf'"):
        result.compare("rff")


# ---- slowest -------------------------------------------------------------------------------------


def test_the_slowest_tasks_come_first_with_where_they_ran(make):
    there = Place("there", 7, "MainThread")
    result = make.result_of(
        [
            make.outcome("a", 0, {"score": 0.5}, started=10.0, ended=11.0),
            make.outcome("a", 1, None, failure=make.failed(), place=there, started=10.0, ended=15.0),
            make.outcome("b", 0, {"score": 0.5}, place=None),  # as from a journal
        ]
    )
    frame = result.slowest()
    assert frame[["model", "fold", "seconds"]].to_numpy().tolist() == [
        ["a", 1, 5],
        ["a", 0, 1],
        ["b", 0, 0.75],
    ]
    assert frame.loc[0, ["host", "pid", "failed"]].tolist() == ["there", 7, True]
    assert len(result.slowest(1)) == 1


# ---- what a result says of itself ----------------------------------------------------------------


def test_a_result_says_what_came_from_a_journal(make):
    use = JournalUse("j.sqlite", frozenset({TaskKey("a", 0, 0)}), {"a": "made by exec"}, stopped="disk full")
    told = repr(make.scored({"a": [0.5, 0.5]}, journal=use)).splitlines()
    assert told[-3:] == [
        "1 of 2 tasks taken from the journal 'j.sqlite'",
        "not kept in it: 'a', made by exec",
        "nothing more was recorded in it from some point on: disk full",
    ]
