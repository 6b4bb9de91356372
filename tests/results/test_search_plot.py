"""Pictures of searches: what was tried, what came of it, and the best, whatever the parameters are."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import loguniform
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.svm import SVC

from anyfold import model_selection
from anyfold.errors import InvalidInputError
from anyfold.results import plot_search

X, y = load_iris(return_X_y=True)


class Search:
    """What a fitted search has."""

    refit = True

    def __init__(self, *tried, metric="score"):
        params, scores = zip(*tried, strict=True)
        scores = np.array(scores, dtype=float)
        self.cv_results_ = {
            "params": list(params),
            f"mean_test_{metric}": scores,
            f"std_test_{metric}": np.full(len(scores), 0.125),
            f"split0_test_{metric}": scores - 0.125,
            f"split1_test_{metric}": scores + 0.125,
        }


def rendered(ax):
    """Draw for good: what is wrong with the layout warns, and warnings are errors."""
    ax.figure.draw_without_rendering()
    return ax


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def means_of(ax):
    (drawn,) = ax.containers
    return drawn.lines[0].get_xydata().tolist()


def cells_of(ax):
    (mesh,) = ax.collections
    return mesh.get_array().filled(-1).tolist()


def best_of(ax):
    (mark,) = (line for line in ax.lines if line.get_label() == "best")
    return mark.get_xydata().tolist()


def test_over_one_number_there_is_a_line_in_its_order_and_a_line_per_fold():
    ax = rendered(plot_search(Search(({"C": 4}, 0.5), ({"C": 1}, 0.25), ({"C": 2}, 0.75))))
    assert means_of(ax) == [[1, 0.25], [2, 0.75], [4, 0.5]]
    assert [line.get_ydata().tolist() for line in ax.lines[:2]] == [
        [0.125, 0.625, 0.375],
        [0.375, 0.875, 0.625],
    ]
    assert best_of(ax) == [[2, 0.75]]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("C", "score", "linear")
    assert ax.get_title(loc="left") == "3 candidates, the best score 0.75"


def test_numbers_of_many_sizes_get_a_logarithmic_axis():
    assert plot_search(Search(({"C": 0.1}, 0.5), ({"C": 10}, 0.25))).get_xscale() == "log"
    assert plot_search(Search(({"C": 0}, 0.5), ({"C": 10}, 0.25))).get_xscale() == "linear"


def test_other_values_are_named_on_the_axis_numbers_first():
    tried = [({"depth": None}, 0.5), ({"depth": 5}, 0.25), ({"depth": 3}, 0.75), ({"depth": SVC}, 0.5)]
    ax = rendered(plot_search(Search(*tried)))
    assert labels(ax.xaxis) == ["3", "5", "None", "SVC"]
    assert means_of(ax) == [[0, 0.75], [1, 0.25], [2, 0.5], [3, 0.5]]


def test_over_two_parameters_there_is_a_grid_and_what_has_no_score_is_told():
    search = GridSearchCV(
        SVC(), {"C": [-1, 0.1, 1, 10], "kernel": ["linear", "rbf"]}, cv=2, error_score=np.nan
    )
    with pytest.warns(Warning, match="fits failed|non-finite"):
        search.fit(X, y)
    ax = rendered(plot_search(search))
    assert labels(ax.xaxis) == ["-1", "0.1", "1", "10"]
    assert labels(ax.yaxis) == ["linear", "rbf"]
    means = search.cv_results_["mean_test_score"].reshape(4, 2).T
    assert cells_of(ax) == np.nan_to_num(means, nan=-1).tolist()
    assert [text.get_text() for text in ax.texts].count("no score") == 2
    (frame,) = ax.patches
    best = search.best_params_
    assert (labels(ax.xaxis)[int(frame.get_x())], labels(ax.yaxis)[int(frame.get_y())]) == (
        f"{best['C']:g}", best["kernel"]
    )  # fmt: skip


def test_of_more_parameters_those_are_drawn_that_matter_at_the_best_of_the_others():
    tried = [
        ({"a": a, "b": b, "none": n}, a + 4 * b + n / 8) for a in (0, 1) for b in (0, 1, 2) for n in (0, 1)
    ]
    ax = rendered(plot_search(Search(*tried)))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("b", "a")
    assert cells_of(ax) == [[0.125, 4.125, 8.125], [1.125, 5.125, 9.125]]
    assert "the best over none" in ax.get_title(loc="left")
    ax = rendered(plot_search(Search(*tried), "a"))
    assert means_of(ax) == [[0, 8.125], [1, 9.125]]
    assert "the best over 2 other parameters" in ax.get_title(loc="left")


def test_what_a_candidate_does_not_have_is_said():
    tried = [
        ({"kernel": "rbf", "gamma": 1}, 0.5),
        ({"kernel": "rbf", "gamma": 2}, 0.75),
        ({"kernel": "linear"}, 0.25),
    ]
    ax = rendered(plot_search(Search(*tried), ["kernel", "gamma"]))
    assert sorted(labels(ax.xaxis)) == ["1", "2", "not set"]
    assert ax.collections[0].get_array().mask.sum() == 3


def test_values_drawn_at_random_are_points():
    space = {"C": loguniform(1e-2, 1e3), "gamma": loguniform(1e-3, 1e1)}
    search = RandomizedSearchCV(SVC(), space, n_iter=12, cv=2, random_state=0).fit(X, y)
    ax = rendered(plot_search(search))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    (points,) = ax.collections
    params = search.cv_results_["params"]
    where = {(one[ax.get_xlabel()], one[ax.get_ylabel()]) for one in params}
    assert set(map(tuple, points.get_offsets().tolist())) == where
    best = search.best_params_
    assert best_of(ax) == [[best[ax.get_xlabel()], best[ax.get_ylabel()]]]
    rendered(plot_search(search, "C"))


def test_a_halving_search_counts_each_candidate_with_the_most_it_was_given():
    search = HalvingGridSearchCV(SVC(), {"C": [0.1, 1, 10, 100]}, cv=2, min_resources=30, random_state=0).fit(
        X, y
    )
    last = {given["C"]: row for row, given in enumerate(search.cv_results_["params"])}
    ax = rendered(plot_search(search))
    expected = [[C, search.cv_results_["mean_test_score"][last[C]]] for C in (0.1, 1, 10, 100)]
    assert means_of(ax) == expected


def test_the_metric_is_that_of_refit_or_the_one_asked_for():
    search = model_selection.GridSearchCV(
        DummyClassifier(),
        {"strategy": ["prior", "uniform"]},
        scoring=["accuracy", "f1_macro"],
        refit="f1_macro",
        cv=2,
        backend="serial",
    ).fit(X, y)
    assert plot_search(search).get_ylabel() == "f1_macro"
    given = Figure().add_subplot()
    assert plot_search(search, metric="accuracy", ax=given) is given
    assert given.get_ylabel() == "accuracy"
    with pytest.raises(InvalidInputError, match="no metric is named 'acc'; did you mean 'accuracy'"):
        plot_search(search, metric="acc")


def test_without_any_score_the_candidates_are_there_all_the_same():
    ax = rendered(plot_search(Search(({"C": 1}, np.nan), ({"C": 2}, np.nan))))
    assert ax.get_title(loc="left") == "2 candidates"


@pytest.mark.parametrize("n", [40, 500])
def test_pictures_are_laid_out_for_many_values_and_long_names(n):
    names = [f"a-pipeline-with-a-long-name-and-number-{i:03d}" for i in range(n)]
    rendered(plot_search(Search(*(({"steps": name}, i) for i, name in enumerate(names)))))
    tried = [({"steps": name, "C": c}, i) for i, name in enumerate(names[:40]) for c in (1, 2)]
    rendered(plot_search(Search(*tried)))


def test_what_cannot_be_drawn_is_refused():
    search = Search(({"a": 1, "b": 1}, 0.5), ({"a": 2, "b": 2}, 0.5))
    with pytest.raises(InvalidInputError, match=r"has no cv_results_: .* call fit first"):
        plot_search(GridSearchCV(SVC(), {"C": [1]}))
    with pytest.raises(InvalidInputError, match="no parameter that differs between candidates is named 'aa'"):
        plot_search(search, "aa")
    with pytest.raises(InvalidInputError, match="one or two different parameters"):
        plot_search(search, ["a", "a"])
    with pytest.raises(InvalidInputError, match="no parameters to draw over"):
        plot_search(Search(({}, 0.5)))
