"""Results as files without pickle."""

import json
import os
import stat
import zipfile

import numpy as np
import pytest

from anyfold._plan.content import JournalUse
from anyfold._plan.task import RelayedWarning, TaskKey
from anyfold.errors import AnyfoldWarning, InvalidInputError
from anyfold.results import CVResult

NAN = float("nan")


@pytest.fixture
def full(make):
    """A result with everything that a file holds."""
    warned = RelayedWarning(RuntimeWarning, "be careful", "module.py", 3)
    unknown = RelayedWarning(type("Gone", (Warning,), {"__module__": "gone"}), "what", "gone.py", 1)
    return make.result_of(
        [
            make.outcome(
                "a", 0, {"auc": 0.1, "acc": NAN}, train={"auc": 1 / 3, "acc": 1.0}, warnings=[warned]
            ),
            make.outcome("a", 1, {"auc": float("inf"), "acc": 1e-300}, train={"auc": 0.0, "acc": 0.0}),
            make.outcome(
                "b \N{SNOWMAN}", 0, None, failure=make.failed(exception=ValueError()), warnings=[unknown]
            ),
        ],
        metrics=("auc", "acc"),
        return_train_score=True,
        interrupted=True,
        parameters={"a": {"C": 0.1, "kernel": "rbf", "cache": print}, "b \N{SNOWMAN}": {}},
        journal=JournalUse("j.sqlite", frozenset({TaskKey("a", 0, 0)}), {"b": "no source"}),
    )


def test_a_saved_result_says_the_same(full, tmp_path):
    full.save(tmp_path / "result.npz")
    again = CVResult.load(tmp_path / "result.npz")
    assert repr(again) == repr(full)
    assert again.to_frame().equals(full.to_frame())
    assert again.summary().equals(full.summary())
    assert again.scores("auc").tobytes() == full.scores("auc").tobytes()
    assert again.missing == full.missing
    assert again.slowest().equals(full.slowest())
    assert again.failures[0].traceback == full.failures[0].traceback
    assert [str(one.category.__name__) for one in again.warnings] == ["RuntimeWarning", "UserWarning"]
    assert again.journal == full.journal
    assert again.parameters["a"] == {"C": 0.1, "kernel": "rbf", "cache": repr(print)}
    for (train, test), (train_before, test_before) in zip(again.splits, full.splits, strict=True):
        assert np.array_equal(train, train_before)
        assert np.array_equal(test, test_before)


def test_a_file_holds_no_pickle_and_is_there_whole_or_not_at_all(full, tmp_path):
    path = tmp_path / "result.npz"
    path.write_text("what was there before")
    full.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.npz"]
    with np.load(path, allow_pickle=False) as arrays:
        assert json.loads(arrays["result"].tobytes())["models"] == ["a", "b \N{SNOWMAN}"]
        assert all(arrays[name].dtype != object for name in arrays)


def test_a_file_is_the_users_own_and_keeps_the_mode_that_it_was_given(make, tmp_path):
    result, path = make.result_of([make.outcome("a", 0, {"score": 0.5})]), tmp_path / "result.npz"
    before = os.umask(0o027)
    try:
        result.save(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        result.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_a_file_that_cannot_be_written_leaves_nothing(full, tmp_path, monkeypatch):
    monkeypatch.setattr(np, "savez_compressed", lambda file, **arrays: file.write(b"some") / 0)
    with pytest.raises(ZeroDivisionError):
        full.save(tmp_path / "result.npz")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_saved_is_said(make, tmp_path):
    result = make.result_of([make.outcome("a", 0, {"score": 0.5}, payload={"estimator": 1})])
    with pytest.warns(AnyfoldWarning, match="^estimators are not saved"):
        result.save(tmp_path / "result.npz")
    with pytest.raises(InvalidInputError, match="no estimators"):
        CVResult.load(tmp_path / "result.npz").estimators("a")


def test_other_files_are_refused(make, tmp_path):
    path = tmp_path / "other"
    path.write_bytes(b"no result")
    with pytest.raises(InvalidInputError, match="holds no saved result"):
        CVResult.load(path)
    np.savez(tmp_path / "other.npz", result=np.array([1, 2]))
    with pytest.raises(InvalidInputError, match="holds no saved result"):
        CVResult.load(tmp_path / "other.npz")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("result.npy", b"\x93NUMPY")
    with pytest.raises(InvalidInputError, match="holds no saved result"):
        CVResult.load(path)
    newer = np.frombuffer(b'{"format": 99, "anyfold": "9.0"}', dtype=np.uint8)
    np.savez(tmp_path / "other.npz", result=newer)
    with pytest.raises(InvalidInputError, match=r"saved by anyfold 9\.0 in format 99"):
        CVResult.load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        CVResult.load(tmp_path / "none.npz")
