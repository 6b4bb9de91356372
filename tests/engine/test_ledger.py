"""What has finished is recorded in groups, and told only when it is on record."""

from anyfold._data.serialize import dumps
from anyfold._engine.events import TaskFinished
from anyfold._engine.ledger import Ledger
from anyfold._engine.relay import Relay
from anyfold._plan.task import Outcome, TaskKey

KEYS = [TaskKey("model", 0, fold) for fold in range(3)]


def ledger(record, observe=lambda event: None):
    return Ledger({}, record, observe, KEYS.index, Relay(prints=True))


def test_with_a_journal_what_has_finished_may_wait_a_moment_for_more():
    recorded, told = [], []

    def record(outcomes):
        assert not told
        recorded.append([outcome.key for outcome in outcomes])

    kept = ledger(record, told.append)
    assert kept.may_wait is None
    for key in KEYS:
        kept.take(key, dumps(Outcome(key)))
    assert 0 <= kept.may_wait <= 0.01
    kept.settle()

    assert recorded == [KEYS]
    assert [event.outcome.key for event in told if isinstance(event, TaskFinished)] == KEYS
    assert kept.may_wait is None


def test_what_waits_is_due_though_more_comes(monkeypatch):
    now = 0.0
    monkeypatch.setattr("anyfold._engine.ledger.time.monotonic", lambda: now)
    kept = ledger(record=list)
    kept.take(KEYS[0], dumps(Outcome(KEYS[0])))
    now = 0.009
    kept.take(KEYS[1], dumps(Outcome(KEYS[1])))
    assert kept.may_wait > 0
    now = 0.011
    assert kept.may_wait == 0


def test_what_took_longer_than_a_group_is_due_at_once():
    kept = ledger(record=list)
    kept.take(KEYS[0], dumps(Outcome(KEYS[0])))
    assert kept.may_wait > 0
    kept.take(KEYS[1], dumps(Outcome(KEYS[1], started=100.0, ended=100.3)))
    assert kept.may_wait == 0


def test_without_a_journal_nothing_waits():
    kept = ledger(record=None)
    kept.take(KEYS[0], dumps(Outcome(KEYS[0])))
    assert kept.may_wait == 0
