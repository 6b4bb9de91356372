"""Folds are checked before any work starts."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.model_selection import GroupKFold, KFold, ShuffleSplit, StratifiedKFold, TimeSeriesSplit

from anyfold._plan.splits import make_splits, make_splitter
from anyfold.errors import AnyfoldWarning, InvalidInputError


def splits_of(cv, y=None, *, n=12, groups=None, stratify=None):
    splitter, _ = make_splitter(cv, y, groups, stratify)
    return make_splits(splitter, np.zeros((n, 1)), y, groups, n)


STRATIFIED = {
    "bool": np.array([True, False] * 6),
    "int": np.array([0, 1, 2] * 4),
    "uint8": np.array([0, 1, 2] * 4, dtype=np.uint8),
    "text": np.array(["a", "b"] * 6),
    "object text": np.array(["a", "b"] * 6, dtype=object),
    "list of text": ["a", "b"] * 6,
    "pandas text": pd.Series(["a", "b"] * 6),
    "pandas category of floats": pd.Series([0.5, 1.5] * 6, dtype="category"),
    "pandas Int64": pd.Series([1, 2] * 6, dtype="Int64"),
    "polars text": pl.Series(["a", "b"] * 6),
    "polars category": pl.Series(["a", "b"] * 6, dtype=pl.Categorical),
    "column": np.array([0, 1] * 6)[:, None],
}
NOT_STRATIFIED = {
    "float": np.array([0.0, 1.0] * 6),
    "float object": np.array([0.0, 1.0] * 6, dtype=object),
    "distinct ints": np.arange(12),
    "several outputs": np.array([[0, 1], [1, 0]] * 6),
    "none": None,
}


@pytest.mark.parametrize("kind", STRATIFIED)
def test_an_int_stratifies_labels(kind):
    splitter, why = make_splitter(2, STRATIFIED[kind], None, None)
    assert isinstance(splitter, StratifiedKFold)
    assert why.startswith("stratified: y is")


@pytest.mark.parametrize("kind", NOT_STRATIFIED)
def test_an_int_does_not_stratify_what_is_no_label(kind):
    splitter, why = make_splitter(2, NOT_STRATIFIED[kind], None, None)
    assert isinstance(splitter, KFold)
    assert why.startswith("not stratified: ")


def test_stratify_decides_when_it_is_given():
    y = np.array([0, 1] * 6)
    assert isinstance(make_splitter(3, y, None, False)[0], KFold)
    assert isinstance(make_splitter(3, y * 1.0, None, True)[0], StratifiedKFold)


@pytest.mark.parametrize(
    "cv", [KFold(3), StratifiedKFold(2), ShuffleSplit(4, random_state=0), TimeSeriesSplit(3)], ids=repr
)
def test_a_splitter_gives_its_own_splits(cv):
    y = np.array([0, 1] * 6)
    expected = list(cv.split(np.zeros((12, 1)), y))
    found = splits_of(cv, y)
    assert len(found) == len(expected)
    for (train, test), (expected_train, expected_test) in zip(found, expected, strict=True):
        assert train.tolist() == expected_train.tolist()
        assert test.tolist() == expected_test.tolist()


def test_groups_reach_the_splitter():
    groups = np.repeat([0, 1, 2], 4)
    for train, test in splits_of(GroupKFold(3), np.arange(12), groups=groups):
        assert not set(groups[train]) & set(groups[test])


def test_pairs_of_indices_masks_and_generators_are_folds():
    mask = np.arange(12) < 4
    ((train, test),) = splits_of([(~mask, mask)])
    assert (train.tolist(), test.tolist()) == (list(range(4, 12)), list(range(4)))
    assert len(splits_of(([0, 1], [i]) for i in (2, 3))) == 2


def test_indices_are_read_only():
    (train, _), *_ = splits_of(3)
    with pytest.raises(ValueError, match="read-only"):
        train[0] = 1


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        (1, "cv=1 makes no folds"),
        ("five", "cv='five' cannot split"),
        (2.5, "cv=2.5 cannot split"),
        (True, "cv=True cannot split"),
        ([], "cv yields no folds"),
        ([3], "fold 0 of cv is int 3"),
        ([([0, 1], [])], "the test set of fold 0 is empty"),
        ([([], [1])], "the train set of fold 0 is empty"),
        ([([0], [1]), ([0], [12])], "the test set of fold 1 has index 12, out of range for 12 samples"),
        ([([0, -1], [1])], "the train set of fold 0 has index -1, out of range"),
        ([([0.5], [1])], "one-dimensional integer indices"),
        ([([[0, 1]], [1])], "one-dimensional integer indices"),
        (KFold(20), "cannot split this data: Cannot have number of splits n_splits=20"),
    ],
    ids=str,
)
def test_folds_that_cannot_be_are_named(cv, message):
    with pytest.raises(InvalidInputError) as error:
        splits_of(cv)
    assert message in str(error.value)


def test_missing_labels_are_counted():
    y = pd.Series(["a", "b", None] * 4)
    with pytest.raises(InvalidInputError, match="4 missing labels"):
        splits_of(3, y)
    with pytest.raises(InvalidInputError, match="1 missing labels"):
        splits_of(2, np.array([0.0, 1.0] * 5 + [np.nan, 1.0]), stratify=True)


def test_a_class_with_too_few_members_is_named():
    y = np.array([0] * 10 + [1] * 2)
    with pytest.raises(InvalidInputError, match=r"class 1 of y has 2 members, fewer than the 3 folds"):
        splits_of(3, y)
    assert len(splits_of(3, y, stratify=False)) == 3


def test_groups_beside_an_int_are_refused_since_they_would_be_ignored():
    with pytest.raises(InvalidInputError, match=r"cv=GroupKFold\(3\)"):
        splits_of(3, groups=np.arange(12))


def test_stratify_beside_a_splitter_is_refused():
    with pytest.raises(InvalidInputError, match="goes with an int cv"):
        splits_of(KFold(3), stratify=True)


def test_overlap_is_warned_of():
    with pytest.warns(AnyfoldWarning, match=r"overlap in fold 1 \(fold 1: 2 rows in both\)"):
        splits_of([([0], [1]), ([0, 1, 2], [1, 2])])


def test_clean_folds_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits_of(3, np.array([0, 1] * 6))
