"""Puts anyfold's searches and validations where scikit-learn's own tests look for theirs.

A plugin of pytest, used by the nox session ``drop_in``.
"""

import pytest
import sklearn.model_selection as theirs

import anyfold.model_selection as ours

NOT_OURS = {
    "test_custom_run_search": "compares all attributes with a class derived from scikit-learn's own base",
    "test_cross_val_score_fit_params": "compares a parameter of fit by identity; each task has its own copy",
    "test_base_estimator_inputs": "counts calls of set_params; open random states are set too",
}
"""Tests that ask for something else than numbers and behaviour, and why that is different."""

for name in ours.__all__:
    setattr(theirs, name, getattr(ours, name))


def pytest_collection_modifyitems(items):
    for item in items:
        if (reason := NOT_OURS.get(item.originalname)) is not None:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=False))
