"""Workers cut what scikit-learn would cut, once per fold, and nobody can spoil it for the next task."""

from __future__ import annotations

import threading
from contextlib import suppress

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import sklearn
from sklearn.svm import SVC
from sklearn.utils.metaestimators import _safe_split

from anyfold._data import slices as module
from anyfold._data.cache import Cache
from anyfold._data.files import publish
from anyfold._data.kinds import private_copy
from anyfold._data.serialize import serialize
from anyfold._data.slices import check_slices_fit, default_cache_limit, set_cache_limit, slices

N = 12
sklearn_version = tuple(map(int, sklearn.__version__.split(".")[:2]))
TRAIN, TEST = np.array([9, 0, 4, 5, 11, 2]), np.array([1, 10, 3])


@pytest.fixture(autouse=True)
def empty_cache():
    module._kept.drop(lambda key, kept: True)
    set_cache_limit(10_000_000)
    yield
    module._kept.drop(lambda key, kept: True)
    set_cache_limit(None)


DATA = {
    "C order": lambda: np.arange(36.0).reshape(N, 3),
    "F order": lambda: np.asfortranarray(np.arange(36.0).reshape(N, 3)),
    "strided": lambda: np.arange(144.0).reshape(2 * N, 6)[::2, ::-2],
    "three axes": lambda: np.arange(72.0).reshape(3, N, 2).transpose(1, 2, 0),
    "one axis": lambda: np.arange(N),
    "text": lambda: np.array([f"text {i}" for i in range(N)]),
    "objects": lambda: np.array(["a", None] * 6, dtype=object),
    "csr": lambda: sp.random(N, 4, 0.5, format="csr", random_state=0),
    "csc array": lambda: sp.csc_array(sp.random(N, 4, 0.5, random_state=0)),
    "lil": lambda: sp.random(N, 4, 0.5, format="lil", random_state=0),
    "data frame": lambda: pd.DataFrame(
        {
            "a": np.arange(12.0),
            "t": list("abcdefghijkl"),
            "c": pd.Categorical(list("aab") * 4),
            "b": np.ones(12),
        }
    ),
    "numeric data frame": lambda: pd.DataFrame(np.arange(36.0).reshape(N, 3)),
    "series": lambda: pd.Series(np.arange(N), index=list("abcdefghijkl")),
    "polars frame": lambda: pl.DataFrame({"a": np.arange(12.0), "t": list("abcdefghijkl")}),
    "polars series": lambda: pl.Series("y", list(range(N))),
    "list": lambda: [f"text {i}" for i in range(N)],
    "list of lists": lambda: [[i, i + 1] for i in range(N)],
    "masked": lambda: np.ma.masked_array(np.arange(12.0), mask=[0, 0, 1] * 4),
}
if sklearn_version >= (1, 8):  # earlier ones cannot cut it
    DATA["arrow table"] = lambda: pa.table({"a": list(range(N)), "t": list("abcdefghijkl")})
NEVER_KEPT = {"lil", "list of lists", "masked"}


def cut(X, y=None, *, fold=0, data_id="data", **kwargs):
    return slices(data_id, fold, X, y, TRAIN, TEST, **({"pairwise": False} | kwargs))


def assert_same(a, b):
    """Assert equal types, content and memory layout."""
    assert type(a) is type(b)
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
        a, b = a.to_numpy(), b.to_numpy()
        assert a.strides == b.strides
    elif isinstance(a, pd.Series):
        pd.testing.assert_series_equal(a, b)
    elif isinstance(a, np.ma.MaskedArray):
        assert a.tolist() == b.tolist()
    elif isinstance(a, pa.Table | pl.DataFrame | pl.Series):
        assert a.equals(b)
    else:
        first, second = serialize(a), serialize(b)
        assert first.stream == second.stream
        assert list(map(bytes, first.buffers)) == list(map(bytes, second.buffers))


@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("kind", DATA)
def test_slices_of_shared_data_are_what_scikit_learn_would_cut_of_the_original(kind, writable):
    X, y = DATA[kind](), np.arange(N)
    shared = publish((X, y))
    X_train, y_train = _safe_split(SVC(), X, y, TRAIN)
    X_test, y_test = _safe_split(SVC(), X, y, TEST, TRAIN)
    for _ in range(2):
        fold = cut(*shared.get(), writable=writable)
        assert_same(fold.X_train, X_train)
        assert_same(fold.X_test, X_test)
        assert_same(fold.y_train, y_train)
        assert_same(fold.y_test, y_test)


@pytest.mark.parametrize(
    "X", [np.arange(144.0).reshape(N, N), sp.random(N, N, 0.5, format="csr", random_state=0)]
)
def test_kernels_are_cut_along_both_axes(X):
    kernel = SVC(kernel="precomputed")
    fold = cut(X, np.arange(N), pairwise=True)
    assert_same(private_copy(fold.X_train), _safe_split(kernel, X, np.arange(N), TRAIN)[0])
    assert_same(private_copy(fold.X_test), _safe_split(kernel, X, np.arange(N), TEST, TRAIN)[0])
    plain = cut(X, np.arange(N))
    assert plain.X_train.shape == (len(TRAIN), N)


def test_a_kernel_must_be_a_square_array():
    with pytest.raises(ValueError, match="square"):
        cut(np.ones((N, 3)), pairwise=True)
    with pytest.raises(ValueError, match="arrays or sparse"):
        cut([[1.0] * N] * N, pairwise=True)


def test_data_without_targets_has_slices_without_targets():
    for _ in range(2):
        fold = cut(DATA["C order"]())
        assert fold.y_train is None
        assert fold.y_test is None


@pytest.fixture
def cuts(monkeypatch):
    """Count how often a fold is cut."""
    counted = []
    original = module._cut

    def counting(*args, **kwargs):
        counted.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, "_cut", counting)
    return counted


@pytest.mark.parametrize("kind", [kind for kind in DATA if kind not in NEVER_KEPT])
def test_a_fold_is_cut_once(kind, cuts):
    X, y = publish((DATA[kind](), np.arange(N))).get()
    for _ in range(3):
        cut(X, y)
    assert len(cuts) == 1
    cut(X, y, fold=1)
    cut(X, y, data_id="other data")
    assert len(cuts) == 3


@pytest.mark.parametrize("kind", sorted(NEVER_KEPT))
def test_what_cannot_be_guarded_is_cut_for_every_task_and_shares_nothing(kind, cuts):
    (X,) = publish((DATA[kind](),)).get()
    first, second = cut(X), cut(X)
    assert len(cuts) > 2
    assert first.X_train is not second.X_train
    if kind == "list of lists":
        first.X_train[0][0] = "changed"
        assert second.X_train[0][0] == X[TRAIN[0]][0] == TRAIN[0]
    elif kind == "lil":
        first.X_train.data[0].append(9.0)
        assert X.data[TRAIN[0]] == second.X_train.data[0]


def test_slices_are_read_only_and_private_ones_are_not():
    X, y = publish((DATA["C order"](), np.arange(N))).get()
    for part in (cut(X, y).X_train, cut(X, y).y_test):
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            part.flags.writeable = True
    private = cut(X, y, writable=True)
    private.X_train[...] += 1
    private.y_test[:] = 0
    assert_same(private_copy(cut(X, y).X_train), DATA["C order"]()[TRAIN])
    frame = cut(publish(DATA["data frame"]()).get(), fold=1, writable=True).X_train
    frame.iloc[0, 0] = -1.0
    frame.fillna({"a": 0.0}, inplace=True)
    matrix = cut(publish(DATA["csr"]()).get(), fold=2, writable=True).X_train
    matrix.data *= 2


def test_all_rows_of_a_data_frame_are_private_too():
    X = publish(DATA["numeric data frame"]()).get()
    everything = np.arange(N)
    private = slices("all", 0, X, None, everything, everything, pairwise=False, writable=True)
    private.X_train.iloc[0, 0] = -1.0
    private.X_train.fillna(0, inplace=True)
    assert X.iloc[0, 0] == 0.0
    assert private.X_test.iloc[0, 0] == 0.0


def test_what_a_task_does_to_its_wrappers_reaches_nobody():
    X = publish(DATA["data frame"]()).get()
    mine = cut(X).X_train
    mine["new"] = 1
    with suppress(ValueError):  # without copy-on-write it is refused
        mine.iloc[0, 0] = -1.0
    assert_same(cut(X).X_train, DATA["data frame"]().take(TRAIN))


def test_threads_that_ask_for_the_same_fold_cut_it_once(monkeypatch):
    X = publish(np.ones((N, 3))).get()
    started, go, counted = threading.Event(), threading.Event(), []
    original = module._cut

    def slow(*args, **kwargs):
        counted.append(threading.current_thread())
        started.set()
        assert go.wait(30)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, "_cut", slow)
    results = []
    threads = [threading.Thread(target=lambda: results.append(cut(X))) for _ in range(6)]
    threads[0].start()
    assert started.wait(30)
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert len(counted) == 1
    assert len(results) == 6
    assert all(np.shares_memory(result.X_train, results[0].X_train) for result in results)
    assert len({id(result.X_train) for result in results}) == 6


def test_only_what_fits_within_the_bound_is_kept_the_latest_first(cuts):
    X = publish(np.ones((N, 1000))).get()
    one_fold = (len(TRAIN) + len(TEST)) * 8000
    set_cache_limit(2 * one_fold)
    for fold in (0, 1, 0, 1, 2, 1, 2):
        cut(X, fold=fold)
    assert len(cuts) == 3
    cut(X, fold=0)
    assert len(cuts) == 4
    assert module._kept.nbytes <= 2 * one_fold
    set_cache_limit(one_fold - 1)
    assert module._kept.nbytes == 0
    for _ in range(2):
        cut(X, fold=5)
    assert len(cuts) == 6


def test_the_default_bound_is_a_share_of_the_memory_for_each_worker(monkeypatch):
    monkeypatch.setattr(module, "available_memory", lambda: 8_000)
    assert default_cache_limit(1) == 2_000
    assert default_cache_limit(4) == 500


def test_workers_that_would_take_too_much_memory_are_foretold_with_figures(monkeypatch):
    X, y = np.zeros((1000, 100)), np.zeros(1000)
    sizes = [(800, 200)] * 5
    monkeypatch.setattr(module, "available_memory", lambda: 2_000_000)
    assert check_slices_fit(X, y, sizes, 2) is None
    message = check_slices_fit(X, y, sizes, 8)
    for part in ("8 workers", "808.0 kB", "6.5 MB together", "2.0 MB are available", "n_jobs=2"):
        assert part in message
    monkeypatch.setattr(module, "available_memory", lambda: 1000)
    assert "n_jobs" not in check_slices_fit(X, y, sizes, 1)


def test_a_value_whose_building_fails_is_built_again():
    cache: Cache[int] = Cache(2)

    def fail() -> tuple[int, int]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cache.get("a", fail)
    assert cache.get("a", lambda: (1, 1)) == 1
    assert cache.get("a", fail) == 1
    assert len(cache) == 1


def test_a_cache_forgets_what_was_used_least_recently():
    cache: Cache[str] = Cache(2)
    for key in ("a", "b", "a", "c"):
        cache.get(key, lambda k=key: (k, 1))
    assert cache.get("a", lambda: ("built again", 1)) == "a"
    assert cache.get("b", lambda: ("built again", 1)) == "built again"


def test_of_large_slices_only_the_current_fold_is_kept(monkeypatch):
    kept = module._kept
    monkeypatch.setattr(kept, "_small", 1000)
    set_cache_limit(10**9)
    X = np.ones((100, 10))
    halves = np.arange(50), np.arange(50, 100)
    for fold in range(3):
        slices("large", fold, X, None, *halves, pairwise=False)
        assert kept.nbytes == 8000
    set_cache_limit(10**9, n_folds=2)  # as for two threads
    for fold in range(3):
        slices("two threads", fold, X, None, *halves, pairwise=False)
    assert kept.nbytes == 16000
