"""
Books: train, tune, evaluate, predict
=====================================

A publisher has a table of books: genre, language and format are categories, pages and price are numbers. How
many copies will a new book sell? A gradient boosting and a forest are compared, the better kind is tuned, and
the whole backlist is predicted in parts. At the end two models fill gaps in the table itself: one guesses the
genre of a book, the other one its language, over the same rows at once.

Run it as it is, or choose where it runs without touching it::

    ANYFOLD_BACKEND=loky python examples/book_sales.py
"""

# %%
# A table of books
# ----------------
# It is generated, so that the example needs no file. Categories are categories: no model below is given a
# number for them that it could take for a size.

import time

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import anyfold as af
from anyfold.model_selection import GridSearchCV

try:
    import matplotlib.pyplot as plt
except ImportError:
    raise SystemExit('this example draws; pip install "anyfold[plot]", or ".[plot]" in a clone') from None

GENRES = ["crime", "fantasy", "romance", "science", "travel"]
LANGUAGES = ["de", "en", "es", "fr"]
FORMATS = ["hardcover", "paperback", "audio"]


def make_books(n, seed):
    """Return a table of books and the copies that each sold."""
    rng = np.random.default_rng(seed)
    genre, language, form = (rng.integers(len(kinds), size=n) for kinds in (GENRES, LANGUAGES, FORMATS))
    pages = rng.normal(240 + 60 * (genre == 1) - 80 * (genre == 4) + 40 * (language == 0), 40).round()
    price = rng.normal(9 + 6 * (form == 0) + pages / 60 + 2 * (language == 3), 1.5).round(2)
    reviews = rng.poisson(20 + 40 * (language == 1) + 15 * (genre == 0))
    author_titles = rng.geometric(0.2, size=n)
    demand = 5 + 0.4 * (genre == 0) + 0.8 * (language == 1) - 0.3 * (form == 0) - 0.05 * price
    copies = np.exp(demand + 0.02 * reviews + 0.1 * np.sqrt(author_titles) + rng.normal(0, 0.3, n))
    books = pd.DataFrame(
        {
            "genre": pd.Categorical.from_codes(genre, GENRES),
            "language": pd.Categorical.from_codes(language, LANGUAGES),
            "format": pd.Categorical.from_codes(form, FORMATS),
            "pages": pages,
            "price": price,
            "reviews": reviews,
            "author_titles": author_titles,
        },
        index=pd.Index([f"book-{seed}-{number}" for number in range(n)], name="book"),
    )
    return books, np.log(copies)


books, log_copies = make_books(1000, seed=1)
print(books.head(3).to_string())

# %%
# Which kind of model?
# --------------------
# The gradient boosting knows categories by their type. The forest does not: it gets one column for each. Both
# are scored on the same five folds.

categories = ["genre", "language", "format"]
one_column_each = make_column_transformer(
    (OneHotEncoder(sparse_output=False), categories), remainder="passthrough"
)
models = {
    "boosting": HistGradientBoostingRegressor(categorical_features="from_dtype", max_iter=40),
    "forest": make_pipeline(one_column_each, RandomForestRegressor(30, min_samples_leaf=3)),
}
folds = af.Folds(books, log_copies, cv=KFold(5, shuffle=True, random_state=0))
result = af.run_cv(models, folds, scoring=["r2", "neg_mean_absolute_error"], random_state=0)
print(result)
result.plot("r2")
plt.show()

# %%
# Tuning it
# ---------
# The search is scikit-learn's own, with anyfold's settings: its twelve fits run on all cores.

search = GridSearchCV(
    HistGradientBoostingRegressor(categorical_features="from_dtype", max_iter=40, random_state=0),
    {"learning_rate": [0.05, 0.1], "max_leaf_nodes": [7, 31]},
    cv=3,
)
search.fit(books, log_copies)
print(f"best parameters: {search.best_params_}, R2 {search.best_score_:.3f}")

# %%
# Predicting the backlist
# -----------------------
# Rows are split, predicted on all workers and put together in order: index and numbers are the model's own.
# Left to itself anyfold splits only what is worth it; here two partitions are asked for, to show that nothing
# changes.

backlist, _ = make_books(20_000, seed=2)
model = search.best_estimator_

started = time.perf_counter()
own = model.predict(backlist)
seconds_own = time.perf_counter() - started

started = time.perf_counter()
chosen = af.predict_partitions(model, backlist)
seconds_chosen = time.perf_counter() - started

in_parts = af.predict_partitions(model, backlist, n_partitions=2)
print(f"{len(backlist)} books: {seconds_own:.2f} s by the model, {seconds_chosen:.2f} s as anyfold chooses")
print(f"in two partitions every number is the same: {np.array_equal(own, in_parts)}")

# %%
# Two models over one table
# -------------------------
# In old records the genre or the language is missing. A classifier for each is fitted on the columns that it
# may use, both at the same time, and both look at the same table at once.

columns = {
    "genre": ["pages", "price", "reviews", "author_titles"],
    "language": ["pages", "price", "reviews"],
}
data = {name: (books[columns[name]], books[name]) for name in columns}
fitted = af.fit_models(RandomForestClassifier(30, min_samples_leaf=5), data=data, random_state=0)
print(fitted)

guessed = af.predict_models(fitted, backlist, columns=columns)
for name in columns:
    hits = (guessed[name] == backlist[name].astype(object)).mean()
    print(f"{name}: right for {hits:.0%} of the books, {1 / backlist[name].nunique():.0%} by chance")

# %%
# How sure each is, is one table too, with the classes below the model's name.

sure = af.predict_models(fitted, backlist.head(3), columns=columns, method="predict_proba")
print(sure.round(2).to_string())
