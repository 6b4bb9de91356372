"""Real pipelines over data sets that come with scikit-learn, and grids that vary several of their steps."""

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, SelectPercentile, VarianceThreshold, chi2, f_regression
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

__all__ = ["CASES"]

IRIS = load_iris(return_X_y=True)
WINE = load_wine(return_X_y=True)
CANCER = load_breast_cancer(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)


def holes(X, y):
    X = X.copy()
    X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    return X, y


def frame():
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    X = X.assign(
        sex=np.where(X["sex"] > 0, "f", "m"),
        band=pd.Categorical.from_codes(np.digitize(X["bmi"], [-0.02, 0.02]), ["low", "middle", "high"]),
    )
    return X, y


def documents():
    words = [
        f"{name.split()[-1]}{number}" for name in load_breast_cancer().feature_names for number in range(3)
    ]
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 120)
    return [" ".join(random.choice(words[40 * label :][:50], 12)) for label in y], y


def digits():
    X, y = load_digits(n_class=4, return_X_y=True)
    return X[:200], y[:200]


def stacking():
    return StackingClassifier(
        [("tree", DecisionTreeClassifier(max_depth=2, random_state=0)), ("near", KNeighborsClassifier())],
        LogisticRegression(),
        cv=2,
    )


CASES = {
    "scaled linear model": (
        make_pipeline(StandardScaler(), PCA(random_state=0), LogisticRegression()),
        {"pca__n_components": [2, 3], "logisticregression__C": [0.1, 1.0]},
        IRIS,
    ),
    "selected features": (
        make_pipeline(StandardScaler(), SelectKBest(), SVC()),
        {"selectkbest__k": [3, 5], "svc__C": [0.5, 2], "svc__kernel": ["linear", "rbf"]},
        CANCER,
    ),
    "regression on products": (
        make_pipeline(PolynomialFeatures(), StandardScaler(), SelectPercentile(f_regression), Ridge()),
        {"polynomialfeatures__degree": [1, 2], "selectpercentile__percentile": [30], "ridge__alpha": [1, 9]},
        DIABETES,
    ),
    "forest without a seed of its own": (
        make_pipeline(MinMaxScaler(), RandomForestClassifier(n_estimators=5, random_state=3)),
        {"minmaxscaler__clip": [False, True], "randomforestclassifier__max_depth": [1, 3]},
        WINE,
    ),
    "imputation by whole steps": (
        Pipeline(
            [("impute", SimpleImputer()), ("scale", StandardScaler()), ("model", KNeighborsClassifier())]
        ),
        {
            "impute": [SimpleImputer(), SimpleImputer(strategy="median"), KNNImputer(n_neighbors=2)],
            "scale": ["passthrough", StandardScaler()],
            "model__n_neighbors": [3, 7],
        },
        holes(*IRIS),
    ),
    "mixed columns": (
        make_pipeline(
            ColumnTransformer(
                [
                    ("words", OneHotEncoder(handle_unknown="ignore"), ["sex", "band"]),
                    ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "bmi", "bp", "s1"]),
                ],
                remainder="drop",
            ),
            DecisionTreeRegressor(random_state=0),
        ),
        {
            "columntransformer__numbers__simpleimputer__strategy": ["mean", "median"],
            "columntransformer__words": ["drop", OneHotEncoder()],
            "decisiontreeregressor__max_depth": [2, 4],
        },
        frame(),
    ),
    "text": (
        make_pipeline(TfidfVectorizer(), SGDClassifier(random_state=0)),
        {"tfidfvectorizer__ngram_range": [(1, 1), (1, 2)], "sgdclassifier__alpha": [1e-4, 1e-3]},
        documents(),
    ),
    "text, reduced": (
        make_pipeline(CountVectorizer(), MaxAbsScaler(), TruncatedSVD(random_state=0), LogisticRegression()),
        {
            "countvectorizer__min_df": [1, 2],
            "truncatedsvd__n_components": [4],
            "logisticregression__C": [1, 9],
        },
        documents(),
    ),
    "union": (
        make_pipeline(
            FeatureUnion([("pca", PCA(2, random_state=0)), ("best", SelectKBest(k=2))]),
            LinearSVC(random_state=0),
        ),
        {"featureunion__pca__n_components": [1, 2], "featureunion__best__k": [1, 2], "linearsvc__C": [1, 2]},
        WINE,
    ),
    "nested pipelines": (
        Pipeline(
            [
                ("clean", make_pipeline(SimpleImputer(), StandardScaler())),
                ("model", make_pipeline(SelectKBest(k=2), LogisticRegression())),
            ]
        ),
        {"clean__simpleimputer__strategy": ["mean", "median"], "model__logisticregression__C": [1, 2]},
        holes(*WINE),
    ),
    "stacking": (
        make_pipeline(StandardScaler(), stacking()),
        {"standardscaler__with_mean": [True, False], "stackingclassifier__near__n_neighbors": [3, 5]},
        IRIS,
    ),
    "sparse": (
        make_pipeline(VarianceThreshold(), MaxAbsScaler(), SelectKBest(chi2), MultinomialNB()),
        {"selectkbest__k": [10, 20], "multinomialnb__alpha": [0.5, 1.0]},
        (sparse.csr_matrix(digits()[0]), digits()[1]),
    ),
    "precomputed kernel": (
        SVC(kernel="precomputed"),
        {"C": [0.1, 1.0]},
        (IRIS[0] @ IRIS[0].T, IRIS[1]),
    ),
    "numbers that are equal and not the same": (
        make_pipeline(PCA(random_state=0), LogisticRegression()),
        {"pca__n_components": [1, 1.0, 2], "pca__whiten": [False, True]},
        IRIS,
    ),
}
"""Name to pipeline, grid and data."""
