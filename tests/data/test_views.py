"""Threads and serial runs read what worker processes would read, without a copy."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from anyfold._data.files import publish
from anyfold._data.views import view
from anyfold.errors import SharedLost


def test_numbers_are_the_callers_own_memory_read_only_here_and_writable_there():
    X, y = np.asfortranarray(np.ones((4, 3))), np.arange(4)
    shared = view({"X": X, "y": y}).get()
    for mine, theirs in ((X, shared["X"]), (y, shared["y"])):
        assert np.shares_memory(mine, theirs)
        assert theirs.strides == mine.strides
        assert mine.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            theirs.flags.writeable = True


def test_frames_and_sparse_matrices_are_viewed_without_a_copy():
    frame = pd.DataFrame({"a": np.arange(1000.0), "b": np.arange(1000.0)})
    matrix = sp.random(100, 10, 0.5, format="csr")
    assert np.shares_memory(view(frame).get().to_numpy(), frame.to_numpy())
    viewed = view(matrix).get()
    assert np.shares_memory(viewed.data, matrix.data)
    with pytest.raises(ValueError, match="read-only"):
        viewed.data *= 2
    matrix.data *= 2


@pytest.mark.parametrize(
    "array",
    [
        np.arange(48.0).reshape(6, 8)[:, ::2],
        np.arange(48.0).reshape(6, 8)[::-1],
        np.arange(48.0).reshape(2, 4, 6).transpose(1, 2, 0),
        np.arange(4800.0).reshape(6, 800)[:, :2],
        np.broadcast_to(np.arange(4.0), (3, 4)),
    ],
)
def test_a_view_has_the_layout_that_a_worker_process_sees(array):
    shared = publish(array)
    assert view(array).get().strides == shared.get().strides
    assert view(array).get().tolist() == array.tolist()


def test_matching_notices_changes_through_the_shared_memory():
    X, texts = np.arange(100_000.0), ["a", "b"]
    shared = view((X, texts))
    assert shared.matches((X, texts))
    assert shared.matches((X.copy(), ["a", "b"]))
    X[77] += 1
    assert not shared.matches((X, texts))
    X[77] -= 1
    assert shared.matches((X, texts))
    texts[0] = "c"
    assert not shared.matches((X, texts))
    np.negative(X, out=X)
    assert not shared.matches((X, ["a", "b"]))


def test_a_released_view_says_so():
    shared = view([1])
    assert shared.get() == [1]
    shared.release()
    shared.release()
    with pytest.raises(SharedLost, match="share it again"):
        shared.get()


def test_a_view_does_not_leave_its_process():
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(view([1]))
