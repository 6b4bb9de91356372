"""What is recorded is found again, exactly; what is of no use again is not."""

import contextlib
import math
import pickle
import sqlite3
import stat
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from tests.journal.conftest import NAN, RAISE, content, outcome

from anyfold._data.serialize import loads
from anyfold._engine.journal import Journal, Terms
from anyfold._engine.resume import Resumption
from anyfold._plan.content import ContentKey
from anyfold._plan.task import Failure, FoldScores, Outcome, RelayedWarning, TaskKey
from anyfold._worker.failures import failure_of
from anyfold.errors import JournalWarning, SharedLost, TaskTimeoutError, WorkerLostError


def failed(error, stage="fit", value=None):
    try:
        raise error
    except BaseException as raised:
        return outcome(failure=failure_of(stage, raised), value=value)


# What comes back


def test_an_outcome_comes_back_as_it_was_but_for_its_place(kept):
    recorded = outcome(3, value=FoldScores({"b": 0.1, "a": 1 / 3}, {"b": 1.0, "a": 2.0}, 0.3, 0.7))
    found = kept(recorded)
    assert found == replace(recorded, place=None)
    assert list(found.value.test) == ["b", "a"]


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    with Journal(tmp_path_factory.mktemp("journal") / "j.sqlite") as journal:
        yield journal


scores = st.floats() | st.integers() | st.booleans()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(), scores, min_size=1), st.floats(allow_nan=False), st.floats())
def test_every_number_comes_back_to_the_last_bit(journal, test, started, fit_time):
    recorded = Outcome(
        TaskKey("m", 0, 0), FoldScores(test, dict(test), fit_time, 0.0), started=started, ended=started
    )
    journal.record([(content("numbers"), recorded)], NAN)
    found = journal.lookup({recorded.key: content("numbers")}, NAN)[recorded.key]
    for before, after in ((recorded.value.test, found.value.test), (recorded.value.train, found.value.train)):
        assert [(name, exact(value)) for name, value in before.items()] == [
            (name, exact(value)) for name, value in after.items()
        ]
    assert exact(found.value.fit_time) == exact(fit_time)
    assert found.started == found.ended == started


def exact(number):
    if isinstance(number, float):
        return "nan" if math.isnan(number) else number.hex()
    return type(number), number


def test_outcomes_are_found_for_the_task_that_asks(path):
    with Journal(path) as journal:
        journal.record([(content(0), outcome(0))], NAN)
        asked = {TaskKey("other name", 5, 2): content(0), TaskKey("another", 0, 0): content(0)}
        found = journal.lookup({**asked, TaskKey("new", 0, 0): content(1)}, NAN)
    assert {key: each.key for key, each in found.items()} == {key: key for key in asked}


def test_more_keys_than_fit_into_one_query_are_found(path):
    with Journal(path) as journal:
        journal.record([(content(n), outcome(n, score=n / 7)) for n in range(2500)], NAN)
        found = journal.lookup({TaskKey("m", 0, n): content(n) for n in range(-1, 2500)}, NAN)
    assert {key.fold: each.value.test["score"] for key, each in found.items()} == {
        n: n / 7 for n in range(2500)
    }


def test_what_has_no_key_is_neither_recorded_nor_found(path):
    untrusted = ContentKey(None, "for a reason")
    with Journal(path) as journal:
        journal.record([(untrusted, outcome())], NAN)
        assert journal.lookup({TaskKey("m", 0, 0): untrusted}, NAN) == {}


def test_the_root_seed_is_drawn_once_per_file(tmp_path):
    def seed(name):
        with Journal(tmp_path / name) as journal:
            return journal.root_seed

    assert seed("a") == seed("a") != seed("b")


def test_only_the_owner_may_read_a_journal(path):
    with Journal(path) as journal:
        journal.record([(content(0), outcome())], NAN)
        modes = {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert modes == {0o600}


def test_a_closed_journal_is_one_file(path):
    with Journal(path) as journal:
        journal.record([(content(0), outcome())], NAN)
    assert list(path.parent.iterdir()) == [path]


# What is wanted


@pytest.mark.parametrize("wanted", [{"estimators": True}, {"predictions": True}])
def test_a_run_that_wants_what_is_not_kept_takes_nothing(kept, wanted):
    recorded = outcome(payload=b"estimator")
    assert kept(recorded, asked=Terms(**wanted, error_score=float("nan"))) is None
    assert kept(recorded, wrote=Terms(**wanted, error_score=float("nan"))) is not None


def test_warnings_that_may_come_from_predicting_are_not_recorded(kept):
    noisy = outcome(warnings=(RelayedWarning(UserWarning, "m", "f", 1),))
    assert kept(noisy, wrote=Terms(predictions=True, error_score=0.0)) is None
    assert kept(noisy) is not None


@pytest.mark.parametrize(
    "asked", [{"metrics": ("accuracy",)}, {"metrics": ("score", "more")}, {"train_scores": True}], ids=str
)
def test_scores_that_the_run_does_not_ask_for_are_not_taken(kept, asked):
    assert kept(outcome(), asked=replace(NAN, metrics=("score",), train_scores=False)) is not None
    assert kept(outcome(), asked=replace(NAN, **asked)) is None


# Failures


def test_a_failure_of_a_model_comes_back_with_its_original_exception(kept):
    recorded = failed(ValueError("Input X contains NaN.\nsecond line \ud800"))
    found = kept(recorded)
    assert replace(found.failure, exception=None) == replace(recorded.failure, exception=None)
    error = loads(found.failure.exception)
    assert (type(error), error.args) == (ValueError, (recorded.failure.message,))


def test_a_run_that_raises_errors_computes_what_failed_again(kept):
    assert kept(failed(ValueError("text")), asked=RAISE) is None
    assert kept(failed(ValueError("text")), wrote=RAISE) is not None


@pytest.mark.parametrize(
    "error",
    [NotFittedError("fit first"), scipy.linalg.LinAlgError("singular"), np.exceptions.AxisError("axis")],
)
def test_exceptions_of_the_packages_that_are_needed_anyway_come_back(kept, error):
    found = kept(failed(error))
    assert type(loads(found.failure.exception)) is type(error)


class OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [OwnError("m"), KeyError("k"), UnicodeDecodeError("utf-8", b"", 0, 1, "")])
def test_an_exception_that_would_not_be_the_same_is_kept_as_text_only(kept, error):
    recorded = failed(error)
    found = kept(recorded)
    assert found.failure.exception is None
    assert (found.failure.type_name, found.failure.message) == (type(error).__name__, str(error))
    assert found.failure.traceback == recorded.failure.traceback


@pytest.mark.parametrize(
    ("error", "stage"),
    [
        (WorkerLostError("gone"), "worker"),
        (TaskTimeoutError("hung"), "worker"),
        (TaskTimeoutError("hung"), "fit"),
        (SharedLost("gone"), "fit"),
        (MemoryError("no memory"), "fit"),
        (OSError(28, "No space left on device"), "fit"),
        (KeyboardInterrupt(), "fit"),
        (ValueError("of the predictions that this run wanted"), "predict"),
        (TypeError("cannot be pickled"), "result"),
    ],
    ids=repr,
)
def test_a_failure_that_says_nothing_of_the_model_is_computed_again(kept, error, stage):
    recorded = failed(error, stage)
    assert kept(recorded) is None


def test_a_failed_score_comes_back_only_to_a_run_with_the_same_error_score(kept):
    recorded = failed(ValueError("no score"), "score", FoldScores({"score": -1.0}, None, 0.1, 0.1))
    minus_one, zero = Terms(error_score=-1.0), Terms(error_score=0.0)
    assert kept(recorded, wrote=minus_one, asked=minus_one).value.test == {"score": -1.0}
    assert kept(recorded, wrote=minus_one, asked=zero) is None
    assert kept(recorded, wrote=minus_one, asked=RAISE) is None


def test_nan_is_the_same_error_score_as_nan(kept):
    recorded = failed(ValueError("no score"), "score", FoldScores({"score": math.nan}, None, 0.1, 0.1))
    assert kept(recorded, wrote=Terms(error_score=float("nan")), asked=Terms(error_score=np.nan)) is not None


@pytest.mark.parametrize("score", [1 + 2j, np.float64(1.0), "0.5"], ids=repr)
def test_a_score_that_would_not_be_the_same_is_not_recorded(kept, score):
    assert kept(outcome(value=FoldScores({"score": score}, None, 0.1, 0.1))) is None


def test_what_other_front_doors_compute_is_not_recorded(kept):
    assert kept(outcome(value=[1, 2, 3])) is None


# Warnings


@pytest.mark.parametrize(
    "category", [UserWarning, RuntimeWarning, ConvergenceWarning, scipy.linalg.LinAlgWarning]
)
def test_warnings_come_back_with_their_category(kept, category):
    told = RelayedWarning(category, "text \ud800", "file.py", 12)
    assert kept(outcome(warnings=(told, told))).warnings == (told, told)


class OwnWarning(UserWarning):
    pass


def test_a_warning_of_another_category_comes_back_as_text_with_its_name(kept):
    (found,) = kept(outcome(warnings=(RelayedWarning(OwnWarning, "text", "file.py", 12),))).warnings
    assert found == RelayedWarning(UserWarning, "OwnWarning: text", "file.py", 12)


# Several at once


def test_threads_may_write_to_one_file(path):
    def write(part):
        with Journal(path) as journal:
            for n in range(part, 200, 4):
                journal.record([(content(n), outcome(n))], NAN)
            assert journal.stopped is None
        done.append(part)

    done = []
    threads = [threading.Thread(target=write, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [0, 1, 2, 3]
    with Journal(path) as journal:
        assert len(journal.lookup({TaskKey("m", 0, n): content(n) for n in range(200)}, NAN)) == 200


def test_a_new_file_waits_for_those_who_read_it(path):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM sqlite_master").fetchall()
        with ThreadPoolExecutor(1) as threads:
            made = threads.submit(Journal, path)
            while not path.with_name(f"{path.name}-journal").exists():
                assert not made.done(), made.result()
            reader.execute("ROLLBACK")
            with made.result() as journal:
                assert journal.stopped is None


class PressesCtrlC:
    """A connection in which Ctrl-C is seen right after one statement, once."""

    def __init__(self, database, statement):
        self.database = database
        self.statement = statement

    def __getattr__(self, name):
        return getattr(self.database, name)

    def execute(self, statement, *values):
        cursor = self.database.execute(statement, *values)
        if statement == self.statement:
            self.statement = None
            raise KeyboardInterrupt
        return cursor


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_ctrl_c_between_two_statements_leaves_a_journal_that_goes_on(path, statement):
    with Journal(path) as journal:
        journal._database = PressesCtrlC(journal._database, statement)
        with pytest.raises(KeyboardInterrupt):
            journal.record([(content(0), outcome())], NAN)
        journal.record([(content(0), outcome())], NAN)  # the engine does so before it ends
        assert journal.stopped is None
        assert journal.lookup({TaskKey("m", 0, 0): content(0)}, NAN)


def test_a_run_finds_what_another_has_recorded_since_it_began(path):
    with Journal(path) as one, Journal(path) as other:
        one.record([(content(0), outcome())], NAN)
        assert other.lookup({TaskKey("m", 0, 0): content(0)}, NAN)


def test_nothing_is_pickled_into_the_file(path):
    error = ValueError("text")
    with Journal(path) as journal:
        journal.record([(content(0), outcome(payload=pickle.dumps(error)))], NAN)
        journal.record([(content(1), failed(error))], NAN)
    assert pickle.dumps(error) not in path.read_bytes()
    assert b"\x80\x05" not in path.read_bytes()


def test_recording_issues_no_warning(path):
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        with Journal(path) as journal:
            journal.record([(content(0), outcome())], NAN)
    assert issued == []


def test_a_failure_without_its_exception_is_known_by_its_name(kept):
    bare = Failure("fit", "TaskTimeoutError", "hung", "Traceback")
    assert kept(outcome(failure=bare, value=None)) is None
    assert kept(outcome(failure=replace(bare, type_name="ValueError"), value=None)) is not None


# One run beside a journal


def test_a_run_says_what_it_took_and_what_has_no_key(path):
    keys = {
        TaskKey("a", 0, 0): content(0),
        TaskKey("a", 0, 1): content(1),
        TaskKey("b", 0, 0): ContentKey(None, "an open file"),
    }
    with Journal(path) as journal:
        first = Resumption(journal, keys, NAN)
        assert (first.taken, first.use.taken) == ({}, frozenset())
        first.record([Outcome(TaskKey("a", 0, 1), outcome(1).value)])
        first.record([Outcome(TaskKey("b", 0, 0), outcome().value)])
        second = Resumption(journal, keys, NAN)
    assert second.taken.keys() == {TaskKey("a", 0, 1)} == second.use.taken
    assert second.use.untrusted == {"b": "an open file"}
    assert (second.use.path, second.use.reason, second.use.stopped) == (str(path), "", None)


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"estimators": True}, "fitted estimators are"),
        ({"predictions": True}, "predictions are"),
        ({"estimators": True, "predictions": True}, "fitted estimators and predictions are"),
    ],
)
def test_a_run_that_wants_what_is_not_kept_says_that_it_computes_everything(path, wanted, named):
    with Journal(path) as journal:
        resumption = Resumption(journal, {TaskKey("a", 0, 0): content(0)}, Terms(**wanted))
    assert resumption.use.reason == f"{named} not kept in a journal: all tasks were computed"


def test_a_run_says_why_its_journal_stopped(path):
    with Journal(path) as journal:
        resumption = Resumption(journal, {TaskKey("m", 0, 0): content(0)}, NAN)
        path.unlink()
        with pytest.warns(JournalWarning):
            resumption.record([outcome()])
    assert "deleted" in resumption.use.stopped or "gone" in resumption.use.stopped
