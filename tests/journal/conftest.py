"""What the tests of the journal share."""

import hashlib

import pytest

from anyfold._engine.journal import Journal, Terms
from anyfold._plan.content import ContentKey
from anyfold._plan.task import FoldScores, Outcome, Place, TaskKey

NAN = Terms(error_score=float("nan"))
RAISE = Terms(error_score=None)


def content(number, model="Model"):
    """Return a content key like any other, made of a number."""
    return ContentKey(hashlib.blake2b(str(number).encode(), digest_size=32).hexdigest(), "", model)


def outcome(number=0, score=0.5, **more):
    """Return an outcome like those of workers."""
    more.setdefault("value", FoldScores({"score": score}, None, 0.25, 0.125))
    return Outcome(
        TaskKey("m", 0, number), place=Place("host", 7, "MainThread"), started=1000.5, ended=1001.25, **more
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.sqlite"


@pytest.fixture
def kept(path):
    """Return a function that writes an outcome down in one journal and reads it in another."""

    def keep(recorded, wrote=NAN, asked=NAN):
        with Journal(path) as journal:
            journal.record([(content(0), recorded)], wrote)
        with Journal(path) as journal:
            return journal.lookup({recorded.key: content(0)}, asked).get(recorded.key)

    return keep
