"""Means, spreads and ranks are scikit-learn's to the last bit."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

import anyfold.results
from anyfold.results.names import shortened
from anyfold.results.statistics import mean_and_std, rank_by_mean

SCORES = st.one_of(
    st.floats(-1e6, 1e6), st.sampled_from([0.5, 0.75, float("nan"), float("inf"), -float("inf")])
)


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=SCORES))
def test_statistics_are_those_of_scikit_learn_s_searches(scores):
    n_models, n_folds = scores.shape
    search = GridSearchCV(LogisticRegression(), {})
    fits = [{"fit_time": 0.0, "score_time": 0.0, "test_scores": score} for score in scores.ravel()]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of scores that are not finite
        expected = search._format_results([{} for _ in range(n_models)], n_folds, fits)
    means, stds = mean_and_std(scores, np.ones(scores.shape, dtype=bool))
    np.testing.assert_array_equal(means, expected["mean_test_score"])
    np.testing.assert_array_equal(stds, expected["std_test_score"])
    ranks = rank_by_mean(means)
    # scikit-learn 1.9 ranks NaN first where all other means are plus infinity
    assume(
        not np.isposinf(means[~np.isnan(means)]).all() or not np.isnan(means).any() or np.isnan(means).all()
    )
    np.testing.assert_array_equal(ranks, expected["rank_test_score"])
    assert ranks.dtype == expected["rank_test_score"].dtype


@given(arrays(np.float64, (3, 7), elements=st.floats(-10, 10)), arrays(np.bool_, (3, 7)))
def test_folds_that_never_ran_take_no_part(scores, present):
    means, stds = mean_and_std(np.where(present, scores, np.nan), present)
    for row in range(3):
        alone = scores[row][present[row]]
        if alone.size:
            assert means[row] == np.mean(alone) and stds[row] == np.std(alone)
        else:
            assert np.isnan(means[row]) and np.isnan(stds[row])


def test_nan_comes_last_and_equal_means_share_a_rank():
    assert rank_by_mean(np.array([np.nan, 0.5, 0.75, 0.5, np.nan])).tolist() == [4, 2, 1, 2, 4]
    assert rank_by_mean(np.array([np.nan, np.inf, -np.inf])).tolist() == [3, 1, 2]
    assert rank_by_mean(np.array([np.nan, np.nan])).tolist() == [1, 1]


@given(st.lists(st.text("ab-", max_size=60), unique=True, max_size=8), st.integers(8, 40))
def test_shortened_names_stay_apart(names, width):
    labels = shortened(names, width)
    assert len(labels) == len(names) == len(set(labels))
    for name, label in zip(names, labels, strict=True):
        assert len(name) > width or label == name


MODULES = [name for _, name, _ in pkgutil.iter_modules(anyfold.results.__path__, "anyfold.results.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_are_true(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_public_names_are_there():
    assert all(hasattr(anyfold.results, name) for name in anyfold.results.__all__)
