"""
A scorer, an estimator and a backend of your own
================================================

Everything here is defined in the script itself, or in a cell of a notebook, and travels to the workers
as it is. No module to install, no ``if __name__ == "__main__"``.
"""

import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, make_scorer
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

import anyfold as af

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit('this example draws; pip install "anyfold[plot]", or ".[plot]" in a clone') from None

X, y = load_breast_cancer(return_X_y=True)
folds = af.Folds(X, y, cv=StratifiedKFold(5, shuffle=True, random_state=0))

# %%
# A scorer
# --------
# In this data 0 is malignant. To overlook a tumour is worse than to send somebody home a day later, so
# accuracy is not what we want. Anything that scikit-learn's ``scoring`` takes will do, a closure included.


def cost_per_patient(overlooked, alarmed):
    """Return a metric: the mean cost of what is overlooked and of false alarms."""

    def cost(y_true, y_pred):
        (_, misses), (alarms, _) = confusion_matrix(y_true, y_pred)
        return (misses * overlooked + alarms * alarmed) / len(y_true)

    return cost


scoring = {
    "cost": make_scorer(cost_per_patient(overlooked=20, alarmed=1), greater_is_better=False),
    "accuracy": "accuracy",
}

# %%
# An estimator
# ------------
# A wrapper that says "malignant" as soon as its model gives that a small probability.


class Cautious(ClassifierMixin, BaseEstimator):
    """Predict class 0 from a given probability on."""

    def __init__(self, estimator, threshold=0.1):
        self.estimator = estimator
        self.threshold = threshold

    def fit(self, X, y):
        X, y = validate_data(self, X, y)
        self.classes_ = np.unique(y)
        self.estimator_ = clone(self.estimator).fit(X, y)
        return self

    def predict(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        is_suspect = self.estimator_.predict_proba(X)[:, 0] >= self.threshold
        return np.where(is_suspect, self.classes_[0], self.classes_[1])


logit = make_pipeline(StandardScaler(), LogisticRegression())
models = {"plain": logit, **{f"cautious at {t}": Cautious(logit, t) for t in (0.02, 0.1, 0.3)}}

result = af.run_cv(models, folds, scoring=scoring, random_state=0, n_jobs=2)
result

# %%
# By accuracy the plain model is the best one, by cost it is the worst.

figure, axes = plt.subplots(2, figsize=(7, 5.5), layout="constrained")
for ax, metric in zip(axes, scoring, strict=True):
    result.plot(metric, ax)
plt.show()

# %%
# A backend
# ---------
# A backend is an executor: something with ``submit``, which returns a future, and ``shutdown``. This one
# runs tasks in threads and counts them. Any executor that you have from elsewhere is passed in the same
# way.


class Counting(Executor):
    """Runs tasks in threads and counts them."""

    isolation = "thread"  # where tasks run, so that anyfold knows what it need not pickle
    capabilities = frozenset()  # nothing beyond what PEP 3148 asks for

    def __init__(self, max_workers):
        self.max_workers = max_workers
        self.n_submitted = 0
        self._threads = ThreadPoolExecutor(max_workers)
        self._lock = threading.Lock()

    def submit(self, fn, /, *args, **kwargs) -> Future:
        with self._lock:
            self.n_submitted += 1
        return self._threads.submit(fn, *args, **kwargs)

    def shutdown(self, wait=True, *, cancel_futures=False):
        self._threads.shutdown(wait, cancel_futures=cancel_futures)


with Counting(max_workers=2) as executor:
    counted = af.run_cv(models, folds, scoring=scoring, random_state=0, backend=executor)

assert (counted.scores("cost") == result.scores("cost")).all()
print(f"{len(models) * len(folds)} fits, {executor.n_submitted} calls of submit, and the same numbers")

# %%
# With a name the class can be chosen like any other backend, by an argument or by ``ANYFOLD_BACKEND``.

af.register_backend("counting", Counting, replace=True)
named = af.run_cv(models, folds, scoring=scoring, random_state=0, backend="counting", n_jobs=2)
print(named.backend, (named.scores("cost") == result.scores("cost")).all())

# %%
# Whether it keeps all promises, and not only gave these numbers once, the contract says:
# :doc:`/write_a_backend`.
