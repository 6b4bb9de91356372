"""Where a run was interrupted, models are compared on the folds that all of them ran."""

import numpy as np

from anyfold._plan.task import FoldScores, Outcome, TaskKey
from anyfold.results import CVResult


def result(**scores):
    outcomes = [
        Outcome(TaskKey(model, 0, fold), FoldScores({"score": score}, None, 0.1, 0.1))
        for model, values in scores.items()
        for fold, score in enumerate(values)
        if score is not None
    ]
    n_folds = max(map(len, scores.values()))
    return CVResult(
        outcomes,
        models=tuple(scores),
        n_folds=n_folds,
        metrics=("score",),
        splits=[(np.arange(2), np.arange(2))] * n_folds,
        n_samples=2,
        error_score=np.nan,
        random_state=0,
        backend="serial",
        n_jobs=1,
        wall_time=1.0,
        return_train_score=False,
        response_methods=(),
    )


def test_an_easy_fold_that_only_one_model_ran_does_not_make_it_the_best():
    cut_short = result(a=[0.5, 0.6, 1.0], b=[0.6, 0.7, None])
    table = cut_short.summary()
    assert table["score", "mean"].round(3).to_dict() == {"b": 0.65, "a": 0.7}
    assert table["score", "rank"].to_dict() == {"b": 1, "a": 2}
    assert cut_short.best_model == "b"


def test_without_a_fold_in_common_nobody_is_best():
    apart = result(a=[0.5, None], b=[None, 0.7])
    assert apart.best_model is None
    assert apart.summary()["score", "rank"].tolist() == [1, 1]


def test_a_model_that_failed_does_not_hide_the_best():
    assert result(a=[0.5, np.nan], b=[0.4, 0.4]).best_model == "b"
    assert result(a=[np.nan, np.nan]).best_model is None
