"""
Compare five models
===================

Five models by two metrics over five stratified folds. Run it as it is, or choose where it runs without
touching it::

    ANYFOLD_BACKEND=loky python examples/compare_models.py

The numbers are the same on every backend.
"""

from importlib.util import find_spec

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import anyfold as af

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
folds = af.Folds(X, y, cv=StratifiedKFold(5, shuffle=True, random_state=0))

models = {
    "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()),
    "support vectors": make_pipeline(StandardScaler(), SVC()),
    "nearest neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier()),
    "random forest": RandomForestClassifier(),
    "gradient boosting": HistGradientBoostingClassifier(),
}

result = af.run_cv(models, folds, scoring=["roc_auc", "accuracy"], random_state=0)

print(folds)
print()
print(result.summary().round(4).to_string())
print()
print(f"{len(models)} models x {len(folds)} folds on {result.backend} with {result.n_jobs} workers")

# %%
# With matplotlib (``pip install ".[plot]"``) there are pictures: the scores of each model with a line for
# each fold, and what ran where and when.

if find_spec("matplotlib"):
    import matplotlib.pyplot as plt

    result.plot()
    result.plot_timeline()
    plt.show()
