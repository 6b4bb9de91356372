"""
What a grid saves by sharing its steps
======================================

Sixteen candidates, a principal component analysis and a logistic regression each, but only four
different analyses. anyfold fits each of these once on each fold, wherever the work runs.
"""

import pandas as pd
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

import anyfold as af

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit('this example draws; pip install "anyfold[plot]", or ".[plot]" in a clone') from None

X, y = make_classification(800, 300, n_informative=30, random_state=0)
folds = af.Folds(X, y, cv=3)


def candidates(pipeline):
    """Return one model for each point of the grid."""
    return {
        f"{n_components} components, C={C:g}": pipeline(
            [
                ("pca", PCA(n_components, svd_solver="full")),
                ("logit", LogisticRegression(C=C, max_iter=1000)),
            ]
        )
        for n_components in (5, 10, 20, 40)
        for C in (0.01, 0.1, 1, 10)
    }


# %%
# Only steps of scikit-learn's own ``Pipeline`` are shared: what a subclass does is its own business. That
# is how to see the difference.


class PipelineOfMyOwn(Pipeline):
    """Does what ``Pipeline`` does."""


# %%
# Both grids on threads, on processes, and on a Ray and a Dask cluster where these are installed. The
# executors are made before and have worked already, so that no start of a worker is counted. The clusters
# are local ones with two workers; the address of a real one would be an option of ``get_executor``.

known = {backend.name: backend for backend in af.available_backends()}
rows, runs = {}, {}
for name in ("threads", "processes", "ray", "dask"):
    if not known[name].available:
        print(f"{name} is left out: it {known[name].detail}\n")
        continue
    with af.get_executor(name, n_jobs=2) as executor:
        af.run_cv(dict(list(candidates(Pipeline).items())[:8]), folds, backend=executor)  # to warm up
        apart = af.run_cv(candidates(PipelineOfMyOwn), folds, backend=executor, random_state=0)
        shared = af.run_cv(candidates(Pipeline), folds, backend=executor, random_state=0)
    assert (apart.scores() == shared.scores()).all()
    runs[name] = apart, shared
    rows[name] = {
        "each by itself (s)": apart.wall_time,
        "shared (s)": shared.wall_time,
        "times faster": apart.wall_time / shared.wall_time,
        "fits not needed": shared.n_shared_fits,
        "work not done (s)": shared.saved_time,
    }

print(pd.DataFrame(rows).T.round(2).to_string())

# %%
# Of 48 analyses 12 are needed, four on each of three folds, and every score is equal to the last bit. Where
# the candidates of one analysis went to both workers, both have fitted it. What was saved is seen on a
# timeline: both runs on processes, on the same scale. Each bar is a candidate on a fold; the first of a
# branch is long, since it fits the analysis, and those that follow only take it.

apart, shared = runs["processes"]
figure, axes = plt.subplots(2, figsize=(9, 5), layout="constrained", sharex=True)
for ax, result, title in zip(axes, (apart, shared), ("each by itself", "shared"), strict=True):
    result.plot_timeline(ax)
    ax.set_title(f"{title}: {ax.get_title(loc='left')}", loc="left")
    ax.get_legend().remove()
    ax.set_xlabel("")
axes[0].set_xlim(0, apart.wall_time)
axes[1].set_xlabel("seconds from the start of the first task")
plt.show()

# %%
# There is no legend: sixteen candidates have sixteen colours. ``fit_time`` counts the whole path of a
# candidate all the same, as if it had been fitted by itself, so that candidates can be compared.
