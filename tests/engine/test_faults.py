"""The leaf that is charged is the one whose worker died first."""

import pickle

import pytest

from anyfold._engine.faults import MOST_UNEXPLAINED, Blame, lost_failure, timeout_failure
from anyfold._plan.task import Leaf, TaskKey
from anyfold.errors import TaskTimeoutError, WorkerLostError

KEY = TaskKey("m", 0, 1)


def lost(pid=None, incident=1):
    return WorkerLostError("gone", pid, -9, incident)


def test_a_pool_that_names_the_process_settles_it():
    blame = Blame(2, pids={1: 100, 2: 200})
    assert blame.is_guilty(2, lost(200), [1, 2])
    assert not blame.is_guilty(1, lost(200), [1, 2])


def test_else_it_is_the_worker_that_was_gone_first():
    blame = Blame(2, pids={1: 100, 2: 200, 3: 300}, closed=[3, 2, 1])
    assert [blame.is_guilty(worker, lost(), [1, 2]) for worker in (1, 2)] == [False, True]


def test_each_incident_has_one_culprit():
    blame = Blame(2, closed=[2, 1])
    assert blame.is_guilty(2, lost(incident=1), [1, 2])
    assert not blame.is_guilty(1, lost(incident=1), [1])
    blame.closed += [4, 3]
    assert blame.is_guilty(4, lost(incident=2), [3, 4])


def test_without_a_mailbox_the_executors_word_is_enough():
    assert Blame(2).is_guilty(None, lost(), [])


def test_a_worker_that_was_running_explains_the_loss_of_what_waited():
    blame = Blame(2, pids={1: 100, 2: 200})
    assert blame.explains(lost(200), [1, 2])
    assert blame.explains(lost(200), [])  # the same incident, when the guilty unit has been judged
    assert not blame.explains(lost(300, incident=2), [1, 2])
    assert not blame.explains(lost(200, incident=None), [1, 2])


def test_a_suspect_is_charged_when_its_worker_says_nothing_once_more():
    blame = Blame(2)
    one, two = Leaf(KEY), Leaf(TaskKey("m", 0, 2))
    assert blame.suspect([one, two], lost(incident=1), True) is None
    blame.clear(two.key)
    assert blame.suspect([one], lost(incident=2), True) is one
    assert blame.suspect([two], lost(incident=3), True) is None


def test_where_no_worker_can_speak_the_executors_word_is_enough():
    leaf = Leaf(KEY)
    assert Blame(2).suspect([leaf], lost(incident=None), False) is leaf
    assert Blame(2).suspect([leaf], lost(incident=1), False) is None


def test_retries_are_counted_by_leaf():
    blame = Blame(2)
    assert [blame.may_retry(KEY) for _ in range(3)] == [True, True, False]
    assert blame.may_retry(TaskKey("m", 0, 2))


def test_workers_that_die_without_starting_anything_end_the_run():
    blame = Blame(2)
    for incident in range(MOST_UNEXPLAINED):
        blame.note_unexplained(lost(incident=incident))
        blame.note_unexplained(lost(incident=incident))  # many units are lost to one incident
    with pytest.raises(WorkerLostError, match=r"6 times in a row .* without starting a task"):
        blame.note_unexplained(lost(incident="one more"))


def test_failures_name_the_task_and_keep_the_error():
    failure = lost_failure(KEY, lost(100), 3, {"alpha": 1})
    assert (
        "model 'm', fold 1, parameters {'alpha': 1}: the worker that ran it ended 3 times" in failure.message
    )
    error = pickle.loads(failure.exception)
    assert isinstance(error, WorkerLostError)
    assert (error.pid, error.exitcode) == (100, -9)

    failure = timeout_failure(KEY, 1.5, "File x, line 1", None)
    assert isinstance(pickle.loads(failure.exception), TaskTimeoutError)
    assert failure.traceback.endswith("File x, line 1")
