"""Pictures show every fold of every model, and every task on its worker."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from anyfold._plan.task import Place
from anyfold.errors import InvalidInputError
from anyfold.results.figures import model_colors
from anyfold.results.timeline import timeline_of

NAN = float("nan")


@pytest.fixture
def ax():
    return Figure(figsize=(8, 4)).add_subplot()


def labels_of(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def rendered(ax):
    """Draw for good: what is wrong with the layout warns, and warnings are errors."""
    ax.figure.draw_without_rendering()
    return ax


# ---- scores --------------------------------------------------------------------------------------


def test_scores_have_a_row_per_model_the_best_at_the_top(make):
    ax = rendered(make.scored({"low": [0.1, 0.3], "high": [0.7, 0.9], "nan": [NAN, 1.0]}).plot())
    assert labels_of(ax) == ["high", "low", "nan (1 of 2 folds)"]
    assert ax.yaxis_inverted()
    assert ax.get_xlabel() == "score"
    assert "3 models on the same 2 folds" in ax.get_title(loc="left")


def test_each_fold_is_a_line_through_all_models_and_each_score_a_point(make):
    ax = make.scored({"a": [0.5, 0.75, 0.25], "b": [0.125, 0.375, 0.0]}).plot()
    lines = [line.get_xdata().tolist() for line in ax.lines[:3]]
    assert lines == [[0.5, 0.125], [0.75, 0.375], [0.25, 0.0]]
    (points,) = [drawn for drawn in ax.collections if isinstance(drawn, PathCollection)]
    assert sorted(map(tuple, points.get_offsets().tolist())) == [
        (0.0, 1.0), (0.125, 1.0), (0.25, 0.0), (0.375, 1.0), (0.5, 0.0), (0.75, 0.0)
    ]  # fmt: skip
    (means,) = ax.containers
    assert means.lines[0].get_xdata().tolist() == [0.5, np.mean([0.125, 0.375, 0.0])]
    assert legend_of(ax) == ["one fold", "mean ± std"]


def test_a_model_without_a_mean_shows_that_of_the_folds_that_it_has(make):
    ax = make.scored({"a": [0.5, 0.75, 0.25], "b": [NAN, 0.25, 0.75], "none": [NAN, NAN, NAN]}).plot()
    assert labels_of(rendered(ax)) == ["a", "b (2 of 3 folds)", "none (0 of 3 folds)"]
    (hollow,) = (
        line for line in ax.lines if line.get_marker() == "D" and line.get_markerfacecolor() == "white"
    )
    assert hollow.get_xdata().tolist() == [0.5]
    assert "mean, not of all folds" in legend_of(ax)


def test_missing_folds_are_told_at_the_model(make):
    outcomes = [make.outcome("a", 0, {"score": 0.5}), make.outcome("b", 0, {"score": 0.25})]
    ax = rendered(make.result_of([*outcomes, make.outcome("b", 1, {"score": 0.5})], n_folds=2).plot())
    assert labels_of(ax) == ["a (1 of 2 folds)", "b"]


def test_the_metric_is_chosen_by_name_and_orders_the_rows(make):
    outcomes = [
        make.outcome("a", 0, {"auc": 0.9, "acc": 0.1}),
        make.outcome("b", 0, {"auc": 0.1, "acc": 0.9}),
    ]
    result = make.result_of(outcomes, metrics=("auc", "acc"))
    assert labels_of(result.plot()) == ["a", "b"]
    assert labels_of(result.plot("acc")) == ["b", "a"]
    assert result.plot("acc").get_xlabel() == "acc"
    with pytest.raises(InvalidInputError, match="no metric is named 'accc'"):
        result.plot("accc")


def test_what_is_given_to_draw_on_is_drawn_on_and_returned(make, ax):
    result = make.scored({"a": [0.5, 0.75]})
    assert result.plot(ax=ax) is ax
    other = Figure().add_subplot()
    assert result.plot_timeline(ax=other) is other
    rendered(ax), rendered(other)


@pytest.mark.parametrize("n_models", [1, 20, 300])
def test_pictures_are_laid_out_for_any_number_of_models_with_long_names(make, n_models):
    table = {
        f"a-pipeline-of-standardscaler-and-model-number-{i:03d}-with-l2-penalty": [i, i + 1]
        for i in range(n_models)
    }
    result = make.scored(table)
    scores = rendered(result.plot())
    assert len(set(labels_of(scores))) == min(n_models, 60)
    assert max(map(len, labels_of(scores))) <= 36
    assert ("the best 60 of 300" in scores.get_title(loc="left")) == (n_models == 300)
    timeline = rendered(result.plot_timeline())
    assert len(legend_of(timeline)) == min(n_models, 40) + 1 + (n_models > 40)


def test_a_result_without_any_outcome_can_be_drawn(make):
    result = make.result_of([], models=["a", "b"], n_folds=2, interrupted=True)
    assert len(labels_of(rendered(result.plot()))) == 2
    assert "0 tasks on 0 workers" in rendered(result.plot_timeline()).get_title(loc="left")


# ---- timeline ------------------------------------------------------------------------------------


def task(make, model, fold, place, started, ended, **more):
    return make.outcome(model, fold, {"score": 0.5}, place=place, started=started, ended=ended, **more)


@pytest.fixture
def two_workers(make):
    first, second = Place("host", 11, "MainThread"), Place("host", 7, "MainThread")
    return make.result_of(
        [
            task(make, "rf", 1, first, 103.0, 104.5),
            task(make, "nb", 0, second, 101.0, 102.0),
            task(make, "rf", 0, first, 100.0, 102.0),
            task(make, "nb", 1, second, 102.0, 106.0, failure=make.failed()),
        ],
        models=["rf", "nb"],
    )


def bars_of(ax):
    idle, tasks = ax.containers
    return idle, tasks


def test_the_timeline_has_a_lane_per_worker_in_the_order_in_which_they_began(two_workers):
    ax = rendered(two_workers.plot_timeline())
    assert labels_of(ax) == ["pid 11", "pid 7"]
    idle, _ = bars_of(ax)
    assert [(bar.get_x(), bar.get_width()) for bar in idle] == [(0.0, 6.0)] * 2
    assert ax.get_xlim() == (0.0, 6.0)
    assert ax.get_title(loc="left").startswith("4 tasks on 2 workers, 71% busy")


def test_the_timeline_shows_for_which_task_others_have_waited(two_workers, make):
    ax = rendered(two_workers.plot_timeline())
    assert ax.get_title(loc="left").endswith("half of the workers idle in the last 1.5 s, till nb, fold 1")
    (line,) = ax.lines
    assert list(line.get_xdata()) == [4.5, 4.5]
    (frame,) = (patch for patch in ax.patches if not patch.get_fill())
    assert (frame.get_x(), frame.get_width(), frame.get_y() + frame.get_height() / 2) == (2.0, 4.0, 1.0)
    ends = [task(make, "rf", fold, Place("host", fold, "MainThread"), 0.5, 9.5 + fold / 9) for fold in (0, 1)]
    ax = make.result_of(ends).plot_timeline()
    assert "idle" not in ax.get_title(loc="left")
    assert not ax.lines


def test_each_task_is_a_bar_in_seconds_from_the_start_of_the_first(two_workers):
    _, tasks = bars_of(two_workers.plot_timeline())
    drawn = [(round(bar.get_y() + bar.get_height() / 2), bar.get_x(), bar.get_width()) for bar in tasks]
    assert drawn == [(0, 0.0, 2.0), (0, 3.0, 1.5), (1, 1.0, 1.0), (1, 2.0, 4.0)]


def test_bars_are_coloured_by_model_and_failures_hatched(two_workers):
    ax = two_workers.plot_timeline()
    _, tasks = bars_of(ax)
    colors = [to_rgb(bar.get_facecolor()) for bar in tasks]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    assert [bool(bar.get_hatch()) for bar in tasks] == [False, False, False, True]
    assert legend_of(ax) == ["rf", "nb", "failed", "idle"]
    assert [text.get_text() for text in ax.texts] == ["0", "1", "0", "1"]


def test_lanes_are_named_by_what_tells_them_apart(make):
    places = [Place("a", 1, "T1"), Place("a", 1, "T2"), Place("b", 1, "T1")]
    outcomes = [task(make, "rf", fold, place, 100.0 + fold, 104.0) for fold, place in enumerate(places)]
    assert labels_of(make.result_of(outcomes).plot_timeline()) == [
        "a · pid 1 · T1",
        "a · pid 1 · T2",
        "b · pid 1 · T1",
    ]
    assert labels_of(make.result_of(outcomes[:2]).plot_timeline()) == ["pid 1 · T1", "pid 1 · T2"]


def test_tasks_without_a_known_place_are_counted(make):
    here = Place("a", 1, "T1")
    outcomes = [
        task(make, "rf", 0, here, 5.0, 6.0),
        task(make, "rf", 1, None, 5.0, 6.0),
        task(make, "rf", 2, here, 0.0, 0.0),
    ]
    ax = make.result_of(outcomes).plot_timeline()
    assert ax.get_title(loc="left") == "1 task on 1 worker, 100% busy (2 more: unknown where)"


def test_the_timeline_does_not_depend_on_the_order_of_arrival(make):
    outcomes = [task(make, "rf", fold, Place("a", fold % 3, "T"), 100.0 + fold, 104.0) for fold in range(6)]
    assert timeline_of(outcomes) == timeline_of(outcomes[::-1]) == timeline_of(outcomes[3:] + outcomes[:3])


# ---- colours and surroundings --------------------------------------------------------------------


def test_twenty_one_models_have_colours_of_their_own():
    colors = model_colors(30)
    assert len(set(colors)) == 21 and colors[21] == colors[0]
    assert all(0 <= part <= 1 for color in colors for part in color)


def in_a_fresh_process(code):
    setup = """
        import sys
        import numpy as np
        from anyfold._plan.task import FoldScores, Outcome, Place, TaskKey
        from anyfold.results import CVResult

        scores = FoldScores({"score": 0.5}, None, 0.1, 0.1)
        result = CVResult(
            [Outcome(TaskKey("rf", 0, 0), scores, place=Place("h", 1, "t"), started=1.0, ended=2.0)],
            models=["rf"], n_folds=1, metrics=("score",), splits=[(np.array([0]),) * 2], n_samples=1,
            error_score=float("nan"), random_state=0, backend="serial", n_jobs=1, wall_time=1.0,
            return_train_score=False, response_methods=(),
        )
    """
    code = textwrap.dedent(setup) + textwrap.dedent(code)
    # A backend that needs a display, and no display.
    environment = {name: value for name, value in os.environ.items() if "DISPLAY" not in name}
    environment["MPLBACKEND"] = "TkAgg"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_pictures_need_no_display_and_leave_pyplot_alone(tmp_path):
    path = str(tmp_path / "scores.png")
    out = in_a_fresh_process(f"""
        result.plot().figure.savefig({path!r})
        result.plot_timeline()
        print("matplotlib.pyplot" in sys.modules)
    """)
    assert out == ["False"]
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")


def test_pyplot_knows_the_figure_where_the_caller_uses_it():
    out = in_a_fresh_process("""
        import matplotlib
        matplotlib.use("agg")
        from matplotlib import pyplot
        print(result.plot().figure is pyplot.gcf(), result.plot_timeline() is pyplot.gca())
    """)
    assert out == ["True", "True"]


@pytest.mark.parametrize("method", ["plot", "plot_timeline"])
def test_without_matplotlib_the_error_says_how_to_install_it(method):
    out = in_a_fresh_process(f"""
        from anyfold.errors import MissingDependencyError

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "matplotlib":
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Absent())
        try:
            result.{method}()
        except MissingDependencyError as error:
            print('pip install "anyfold[plot]"' in str(error), type(error.__cause__).__name__)
    """)
    assert out == ["True", "ModuleNotFoundError"]
