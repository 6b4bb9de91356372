"""The loop, step by step."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from anyfold._data.serialize import dumps
from anyfold._engine import inbox
from anyfold._engine.faults import Blame
from anyfold._engine.judge import Unit
from anyfold._engine.ledger import Ledger
from anyfold._engine.relay import Relay
from anyfold._engine.run import Run, _Finished
from anyfold._engine.supply import Supply
from anyfold._mail.messages import Done
from anyfold._mail.network import SilentMailbox
from anyfold._plan.task import Leaf, Outcome, TaskKey
from anyfold.errors import WorkerLostError

KEYS = [TaskKey("model", 0, fold) for fold in range(3)]


class Inbox(inbox.Inbox):
    """An inbox into which nothing comes while the loop waits."""

    def first(self, timeout=None):
        if timeout is None and self.empty():
            pytest.fail("the loop would wait for the next event, however late")
        return super().first(timeout)


def test_what_ctrl_c_has_kept_from_being_seen_to_is_still_there(run, monkeypatch):
    run.units[0] = Unit(tuple(map(Leaf, KEYS)))
    run.inbox.put(done(KEYS[0]))

    class PressesCtrlC(Exception):
        pass

    def first(timeout=None):
        Inbox.first(run.inbox, timeout)
        raise PressesCtrlC  # before the caller has what is returned

    with monkeypatch.context() as patch:
        patch.setattr(run.inbox, "first", first)
        with pytest.raises(PressesCtrlC):
            run.advance()
    run._hear_out()
    assert list(run.ledger.outcomes) == KEYS[:1]


@pytest.fixture
def recorded():
    return []


@pytest.fixture
def run(recorded):
    outcomes = {}
    relay = Relay(prints=True)
    run = Run(
        job=SimpleNamespace(isolation="process", stop_on_failure=False, timeout=None),
        supply=Supply(iter(()), 0, {}, outcomes, KEYS.index),
        executor=None,
        shared_job=None,
        n_workers=1,
        blame=Blame(2),
        ledger=Ledger(outcomes, recorded.extend, lambda event: None, KEYS.index, relay),
        time_limit=None,
        temp_dir=None,
        inbox=Inbox(),
    )
    run.mailbox = SilentMailbox(str, lambda token, unit: [])
    return run


def done(key, **more):
    return Done(1, 0, key, dumps(Outcome(key, **more)), False)


def test_what_is_due_is_recorded_though_nothing_more_comes(run, recorded, monkeypatch):
    now = 0.0
    monkeypatch.setattr("anyfold._engine.ledger.time", SimpleNamespace(monotonic=lambda: now))
    run.inbox.put(done(KEYS[0]))
    run.advance()
    assert not recorded  # more may come
    now = 0.011  # the loop's thread was not given the processor for so long
    run.advance()
    assert [outcome.key for outcome in recorded] == KEYS[:1]


def test_what_took_long_is_recorded_as_soon_as_it_has_come(run, recorded):
    run.inbox.put(done(KEYS[0], started=100.0, ended=100.3))
    run.advance()
    assert [outcome.key for outcome in recorded] == KEYS[:1]


def test_workers_that_are_lost_between_others_that_work_do_not_end_the_run(run):
    for incident in range(20):
        key = KEYS[incident % 3]
        run.ledger.outcomes.clear()
        run.judge.lost(Unit((Leaf(key),)), WorkerLostError("gone", incident=incident))
        run.judge.record(key, dumps(Outcome(key)))
    assert run.judge.broken is None


def test_workers_that_are_lost_and_do_nothing_between_end_the_run(run):
    for incident in range(20):
        run.judge.lost(Unit((Leaf(KEYS[0]),)), WorkerLostError("gone", incident=incident))
    assert "6 times in a row" in str(run.judge.broken)


def test_what_a_worker_has_left_says_that_its_leaf_hung_where_it_cannot_reach_the_caller(run):
    left = {3: "Timeout (0:00:01)!\nThread 1:\n  in fit\n"}
    run.judge.silent = SilentMailbox(str, lambda token, unit: [left.get(unit, ""), ""])
    run.job.timeout = 1.0
    for number in (1, 2):
        run.judge.lost(Unit((Leaf(KEYS[0]),), number=number), WorkerLostError("gone"))
        assert not run.ledger.outcomes
    run.judge.lost(Unit((Leaf(KEYS[0]),), number=3), WorkerLostError("gone"))
    failure = run.ledger.outcomes[KEYS[0]].failure
    assert failure.type_name == "TaskTimeoutError"
    assert "in fit" in failure.traceback


def test_the_time_is_over_though_events_keep_coming(run):
    run.units[0] = Unit(tuple(map(Leaf, KEYS)))
    run.deadline = 0.0
    run.inbox.put(done(KEYS[0]))
    run.inbox.put(done(KEYS[1]))
    assert not run.advance()
    assert run.out_of_time
    assert list(run.ledger.outcomes) == KEYS[:2]  # what has arrived counts


def test_what_has_all_arrived_is_no_run_that_was_cut_short(run):
    future = Future()
    future.set_result((1, [(KEYS[1], dumps(Outcome(KEYS[1])))]))
    run.units[0] = Unit(tuple(map(Leaf, KEYS[:2])), future=future)
    run.deadline = 0.0
    run.inbox.put(done(KEYS[0]))
    run.inbox.put(_Finished(0))
    assert not run.advance()
    assert not run.out_of_time
    assert list(run.ledger.outcomes) == KEYS[:2]


def test_an_outcome_that_ctrl_c_finds_in_the_hands_of_the_loop_is_not_lost(run, monkeypatch):
    take = Ledger.take

    def interrupted(*arguments):
        monkeypatch.setattr(Ledger, "take", take)
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "take", interrupted)
    run.inbox.put(done(KEYS[0]))
    with pytest.raises(KeyboardInterrupt):
        run.advance()
    run._hear_out()
    assert list(run.ledger.outcomes) == KEYS[:1]
