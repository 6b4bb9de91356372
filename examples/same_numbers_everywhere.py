"""
The same table on every backend
===============================

A logistic regression and a random forest are compared by ROC AUC over three stratified folds, on every
backend that is installed here. Where the work runs decides how long it takes. It does not decide a single
bit of the result.

``python examples/same_numbers_everywhere.py serial loky`` runs it on these two only.
"""

import sys
import time

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import anyfold as af

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit('this example draws; pip install "anyfold[plot]", or ".[plot]" in a clone') from None

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
folds = af.Folds(X, y, cv=StratifiedKFold(3, shuffle=True, random_state=0))
models = {
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()),
    "random forest": RandomForestClassifier(n_estimators=50),
}

# %%
# One run, in this process, one task after another. The forest has no ``random_state``: it gets its seeds
# from that of the run.

oracle = af.run_cv(models, folds, scoring="roc_auc", random_state=0, backend="serial")


def table(result):
    """Return the scores per fold and their mean."""
    scores = result.to_frame().pivot(index="model", columns="fold", values="score")
    return scores.assign(mean=scores.mean(axis=1))


print(table(oracle).round(4).to_string())

# %%
# The folds are the same for both models, so that their scores come in pairs: a line is one fold.

oracle.plot()
plt.show()

# %%
# Now everywhere. ``available_backends`` knows what is installed. Each backend runs twice: the first run
# includes the start of its workers, the second one finds them warm.

installed = [backend.name for backend in af.available_backends() if backend.available]
backends = sys.argv[1:] or installed
first, second = {}, {}
for name in backends:
    started = time.perf_counter()
    with af.get_executor(name, n_jobs=2) as executor:
        for seconds in (first, second):
            result = af.run_cv(models, folds, scoring="roc_auc", random_state=0, backend=executor)
            assert table(result).equals(table(oracle)), name
            seconds[name] = time.perf_counter() - started
            started = time.perf_counter()
    print(f"{name:16} the same table, to the last bit")

# %%
# What differs is the time. For six fits on a few hundred samples no start of a process pays; on work of
# minutes nobody would see it.

figure, ax = plt.subplots(figsize=(7, 0.6 + 0.45 * len(backends)), layout="constrained")
names = sorted(backends, key=second.get, reverse=True)
for row, name in enumerate(names):
    ax.plot([first[name], second[name]], [row, row], color="#cccccc", zorder=1)
ax.scatter(
    [first[name] for name in names], names, color="#E69F00", label="first run, with the start of the workers"
)
ax.scatter([second[name] for name in names], names, color="#0072B2", label="second run")
ax.set(xscale="log", xlabel="seconds for the same table")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
plt.show()
