"""What tasks say reaches the caller, in task order, with the task's name."""

import logging
import sys
import warnings

import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from tests.backends import BACKENDS

import anyfold as af
from anyfold.results import OutputRecord

X, y = load_iris(return_X_y=True)
FOLDS = [(range(10 * fold, 150), range(10)) for fold in range(1, 5)]


class Talks(BaseEstimator):
    def __init__(self, name="a"):
        self.name = name

    def fit(self, X, y):
        fold = (150 - len(X)) // 10 - 1
        print(f"printed by {self.name} on {fold}\nand more")
        sys.stderr.write(f"complained by {self.name} on {fold}\n")
        logger = logging.getLogger("tests.talks")
        logger.info("logged by %s on %d", self.name, fold, extra={"fold": fold})
        logger.debug("never shown")
        try:
            raise ValueError("inside")
        except ValueError:
            logger.exception("with a traceback")
        return self

    def predict(self, X):
        return [0] * len(X)

    def score(self, X, y):
        return 1.0


ORDER = [(model, fold) for fold in range(4) for model in ("a", "b")]


@pytest.fixture
def talk(caplog, capsys):
    def run(backend):
        with caplog.at_level(logging.INFO, "tests.talks"):
            folds = af.Folds(X, y, cv=FOLDS)
            run.result = af.run_cv({"a": Talks("a"), "b": Talks("b")}, folds, backend=backend, n_jobs=2)
        return caplog.records, capsys.readouterr()

    return run


@pytest.mark.parametrize("backend", BACKENDS)
def test_logging_reaches_the_callers_handlers_in_task_order(backend, talk):
    records, _ = talk(backend)
    said = [record.getMessage() for record in records if record.levelno == logging.INFO]
    assert said == [f"[model '{m}', fold {f}] logged by {m} on {f}" for m, f in ORDER]
    assert [record.fold for record in records if record.levelno == logging.INFO] == [f for _, f in ORDER]
    errors = [record for record in records if record.levelno == logging.ERROR]
    assert len(errors) == 8
    assert all("ValueError: inside" in record.exc_text for record in errors)
    assert len(records) == 16  # nothing below the caller's level


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "serial"])
def test_output_reaches_the_caller_in_task_order_with_names(backend, talk):
    _, captured = talk(backend)
    out = [
        line
        for m, f in ORDER
        for line in (f"[model '{m}', fold {f}] printed by {m} on {f}", f"[model '{m}', fold {f}] and more")
    ]
    assert captured.out.splitlines() == out
    assert captured.err.splitlines() == [
        f"[model '{m}', fold {f}] complained by {m} on {f}" for m, f in ORDER
    ]


def test_serial_output_is_left_alone_so_that_a_debugger_can_be_used(talk):
    _, captured = talk("serial")
    assert captured.out.splitlines() == [
        line for m, f in ORDER for line in (f"printed by {m} on {f}", "and more")
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_logged_and_printed_is_on_the_result(backend, talk):
    talk(backend)
    logs, output = talk.result.logs, talk.result.output
    by_model = sorted(ORDER)
    assert [(told.model, told.fold) for told in logs] == [place for place in by_model for _ in range(2)]
    told = [(told.logger, told.level, told.message) for told in logs if told.level == logging.INFO]
    assert told == [("tests.talks", logging.INFO, f"logged by {m} on {f}") for m, f in by_model]
    errors = [told.message for told in logs if told.level == logging.ERROR]
    assert all(text.startswith("with a traceback\nTraceback") for text in errors)
    assert all(text.endswith("ValueError: inside") for text in errors)
    assert output == tuple(
        printed
        for m, f in by_model
        for printed in (
            OutputRecord(m, f, "stdout", f"printed by {m} on {f}\nand more\n"),
            OutputRecord(m, f, "stderr", f"complained by {m} on {f}\n"),
        )
    )


def test_logs_and_output_are_saved_and_are_in_a_journal(tmp_path, caplog, capsys):
    def run(**settings):
        with caplog.at_level(logging.INFO, "tests.talks"):
            journal = tmp_path / "journal.sqlite"
            return af.run_cv(Talks(), folds, backend="serial", journal=journal, **settings)

    folds = af.Folds(X, y, cv=FOLDS)
    result = run()
    result.save(tmp_path / "result.npz")
    loaded, again = af.CVResult.load(tmp_path / "result.npz"), run()
    assert len(again.journal.taken) == 4
    assert (len(result.logs), len(result.output)) == (8, 8)
    assert (loaded.logs, loaded.output) == (again.logs, again.output) == (result.logs, result.output)
    assert capsys.readouterr().out.count("printed by a on 0") == 1
    # which of it came from predicting nobody knows, so that it is not kept for a run that predicts nothing
    other = tmp_path / "other.sqlite"
    af.run_cv(Talks(), folds, backend="serial", journal=other, return_predictions="predict")
    assert not af.run_cv(Talks(), folds, backend="serial", journal=other).journal.taken


def test_runs_inside_of_tasks_are_heard_once(capsys):
    class Outer(Talks):
        def fit(self, X, y):
            with af.config_context(backend="serial"):
                everything = load_iris(return_X_y=True)
                self.inner_ = af.run_cv(Talks("inner"), af.Folds(*everything, cv=FOLDS[:1]))
            return self

    outer = af.run_cv(Outer(), af.Folds(X, y, cv=FOLDS[:1]), backend="serial", return_estimator=True)
    (inner,) = [model.inner_ for model in outer.estimators("outer")]
    assert [record.text for record in inner.output] == [record.text for record in outer.output]
    assert capsys.readouterr().out == "printed by inner on 0\nand more\n" == inner.output[0].text


@pytest.mark.parametrize("backend", ["serial", "threads", "multiprocessing"])
def test_fitted_models_have_logs_and_output(backend, caplog):
    with caplog.at_level(logging.INFO, "tests.talks"):
        fitted = af.fit_models({"a": Talks(), "b": Talks("b")}, X[:20], y[:20], backend=backend, n_jobs=2)
    assert [told.message for told in fitted.logs if told.level == logging.INFO] == [
        "logged by a on 12",
        "logged by b on 12",
    ]
    assert fitted.output[0] == OutputRecord("a", -1, "stdout", "printed by a on 12\nand more\n")
    assert [told.model for told in fitted.output] == ["a", "a", "b", "b"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_callers_streams_and_loggers_are_put_back(backend, talk):
    before = sys.stdout, sys.stderr, logging.Logger.callHandlers
    talk(backend)
    assert (sys.stdout, sys.stderr, logging.Logger.callHandlers) == before


@pytest.mark.parametrize("backend", ["threads", "multiprocessing"])
def test_a_log_record_that_cannot_be_pickled_costs_nothing_but_what_is_in_the_way(backend, caplog):
    class Careless(Talks):
        def fit(self, X, y):
            logger = logging.getLogger("tests.talks")
            logger.info("before")
            logger.warning("careless with %s", self.name, extra={"lock": Lock(), "number": 7})
            logger.info("after")
            return self

    with caplog.at_level(logging.INFO, "tests.talks"):
        result = af.run_cv(Careless(), af.Folds(X, y, cv=FOLDS), backend=backend, n_jobs=2)
    assert result["careless"]["test_score"].tolist() == [1.0] * 4
    said = [record.getMessage().partition("] ")[2] for record in caplog.records]
    assert said == ["before", "careless with a", "after"] * 4
    assert [record.number for record in caplog.records if record.levelno == logging.WARNING] == [7] * 4


class Lock:
    def __reduce__(self):
        raise TypeError("cannot be pickled")


class Looks(TransformerMixin, BaseEstimator):
    """Remembers which warning filters hold in the process while it is fitted."""

    def fit(self, X, y=None):
        self.filters_ = id(warnings.filters)
        return self

    def transform(self, X):
        return X

    def score(self, X, y):
        return self.filters_


@pytest.mark.parametrize("backend", ("threads", "serial"))
def test_parallel_loops_of_scikit_learn_leave_the_filters_of_other_tasks_alone(backend):
    looks = make_pipeline(ColumnTransformer([("inside", Looks(), [0, 1])]), Looks())
    result = af.run_cv(looks, af.Folds(X, y, cv=2), backend=backend, return_estimator=True)
    for pipeline in result.estimators("pipeline"):
        inside = pipeline[0].named_transformers_["inside"]
        assert inside.filters_ == pipeline[1].filters_
