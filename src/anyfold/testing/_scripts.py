"""A script as a user writes one, run once for each contract class; several tests look at what came of it."""

from __future__ import annotations

import textwrap
from typing import Any
from weakref import WeakKeyDictionary

from anyfold.testing._driver import Ended, run_driver
from anyfold.testing._limits import PATIENCE

__all__ = ["NOTEBOOK", "ended_script"]

NOTEBOOK = """
    from sklearn.base import BaseEstimator

    OFFSET = 40

    def helper(x):
        return x + OFFSET

    class Base(BaseEstimator):
        def fit(self, X, y=None):
            self.fitted_ = helper(2)
            return self

    class Model(Base):
        def fit(self, X, y=None):
            return super().fit(X, y)

        def score(self, X, y=None):
            return float(self.fitted_)

    def scorer(estimator, X, y=None):
        return float(helper(estimator.fitted_))
"""

_SCRIPT = textwrap.dedent(NOTEBOOK) + textwrap.dedent(
    """
    import anyfold
    from anyfold.testing.probes import probe_data

    folds = anyfold.Folds(*probe_data(), cv=3)
    executor = make_executor(2)
    result = anyfold.run_cv({"m": Model()}, folds, scoring=scorer, backend=executor, progress=False)
    print(result["m"]["test_score"].tolist(), result.failures, __name__, flush=True)
    executor.shutdown()
    forgotten = make_executor(1)
    assert forgotten.submit(abs, -1).result() == 1
    """
)

_ended: WeakKeyDictionary[type, Ended] = WeakKeyDictionary()


def ended_script(subject: Any) -> Ended:
    """Return what came of a script that shuts one executor down and forgets another."""
    cls = type(subject)
    if cls not in _ended:
        _ended[cls] = run_driver(subject, _SCRIPT, PATIENCE)
    return _ended[cls]
