"""An object is published once, read in place by any process, and gone when its owner is."""

from __future__ import annotations

import gc
import os
import pickle
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from anyfold._data import storage
from anyfold._data.files import Replica, drop_released, publish
from anyfold.errors import InvalidSettingError, SharedLost

READER = """
import pickle, re, sys
from pathlib import Path

def memory():
    fields = dict(re.findall(r"(\\w+): +(\\d+) kB", Path("/proc/self/smaps_rollup").read_text()))
    return {name: int(value) * 1024 for name, value in fields.items()}

def mappings():
    return sum("memfd:anyfold" in line for line in Path("/proc/self/maps").read_text().splitlines())

for line in sys.stdin:
    try:
        answer = eval(line)
    except Exception as error:
        answer = error
    print(pickle.dumps(answer).hex(), flush=True)
"""


def _hex(obj: object) -> str:
    return pickle.dumps(obj).hex()


class Reader:
    """Another process that evaluates expressions, in which names stand for handles."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, expression: str, **handles: object) -> object:
        if handles:
            names = re.compile(rf"\b({'|'.join(handles)})\b")
            expression = names.sub(
                lambda m: f"pickle.loads(bytes.fromhex('{_hex(handles[m[0]])}'))", expression
            )
        print(expression, file=self._process.stdin, flush=True)
        return pickle.loads(bytes.fromhex(self._process.stdout.readline()))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def readers():
    made = [Reader(), Reader()]
    yield made
    for reader in made:
        reader.close()


@pytest.fixture
def reader(readers):
    return readers[0]


@pytest.fixture
def no_shared_memory(monkeypatch):
    monkeypatch.setattr(storage, "available_memory", lambda: 0)
    monkeypatch.setattr(storage, "SMALL", -1)


def open_files() -> list[str]:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(entry.readlink()))
        except OSError:
            continue  # the descriptor of the listing itself
    return links


def published_files() -> int:
    return sum("memfd:anyfold" in link for link in open_files())


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_another_process_reads_an_object_with_its_layout_and_cannot_write_to_it(reader):
    array = np.arange(60.0).reshape(3, 4, 5).transpose(1, 2, 0)
    shared = publish({"X": array, "text": ["a", "b"]})
    assert reader("(H.get()['X'].strides, H.get()['X'].tolist(), H.get()['text'])", H=shared) == (
        array.strides,
        array.tolist(),
        ["a", "b"],
    )
    error = reader("H.get()['X'].fill(0)", H=shared)
    assert isinstance(error, ValueError)
    assert "read-only" in str(error)
    assert isinstance(reader("H.get()['X'].setflags(write=True)", H=shared), ValueError)


def test_the_owner_reads_its_own_object_read_only_and_keeps_its_data_writable():
    array = np.zeros(5)
    shared = publish(array)
    assert not shared.get().flags.writeable
    assert shared.get() is shared.get()
    array[0] = 1.0
    assert shared.get()[0] == 0.0


def test_a_handle_is_small():
    assert len(pickle.dumps(publish(np.zeros((1000, 1000))))) < 400


def test_every_buffer_is_aligned():
    arrays = [np.arange(n, dtype=np.int8) for n in (1, 3, 64, 65, 1000)]
    shared = publish(arrays)
    assert [array.ctypes.data % 64 for array in shared.get()] == [0] * 5
    assert all(map(np.array_equal, shared.get(), arrays))


@pytest.mark.parametrize("obj", [None, [], np.zeros((0, 3)), "text", pd.DataFrame()])
def test_objects_without_memory_of_their_own_can_be_published(obj):
    assert type(publish(obj).get()) is type(obj)


def big_array():
    return np.random.default_rng(0).random(25_000_000)


def big_frame():
    n = 1_000_000
    words = pd.Series([f"{i:04d}" * 30 for i in range(1000)], dtype="string[pyarrow]")
    text = words.take(np.random.default_rng(0).integers(0, 1000, n)).reset_index(drop=True)
    return pd.DataFrame({**{f"f{i}": np.arange(n) * 1.0 for i in range(8)}, "text": text})


SUM_OF_FRAME = "sum(H.get()[f'f{i}'].sum() for i in range(8)) + H.get()['text'].str.len().sum()"


@pytest.mark.parametrize(
    ("make", "touch"), [(big_array, "H.get().sum()"), (big_frame, SUM_OF_FRAME)], ids=["array", "frame"]
)
def test_two_processes_hold_the_numbers_and_texts_of_200_mb_once(readers, make, touch):
    small = make()[:10].copy()
    shared, warm_up = publish(make()), publish(small)
    assert shared.nbytes > 180e6
    for reader in readers:
        reader(touch, H=warm_up)  # imports
    before = [reader("memory()") for reader in readers]
    for _ in range(20):
        first, second = (reader(touch, H=shared) for reader in readers)
        assert first == second
    after = [reader("memory()") for reader in readers]

    def growth(name: str) -> list[int]:
        return [a[name] - b[name] for a, b in zip(after, before, strict=True)]

    private = [a + b for a, b in zip(growth("Private_Clean"), growth("Private_Dirty"), strict=True)]
    assert min(growth("Rss")) > 180e6  # each of them sees all pages,
    assert sum(growth("Pss")) < shared.nbytes + 40e6  # which exist once;
    assert max(private) < 20e6  # next to nothing is their own


PEAK = """
import resource, numpy as np
from anyfold._data.files import publish
array = np.random.rand(10_000_000)
publish(array[:10]).get()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
shared = publish(array)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_publishing_takes_no_second_copy_in_the_owners_memory():
    assert int(run(PEAK)) < 8_000  # kB; the array has 80 MB


def test_what_does_not_fit_into_memory_goes_to_an_unnamed_file(tmp_path, reader, no_shared_memory):
    shared = publish(np.arange(1000.0), temp_dir=str(tmp_path))
    (link,) = [link for link in open_files() if link.startswith(str(tmp_path))]
    assert link.endswith("(deleted)")
    assert list(tmp_path.iterdir()) == []
    assert reader("H.get().sum()", H=shared) == 499_500.0
    shared.release()
    assert not [link for link in open_files() if link.startswith(str(tmp_path))]


def test_where_unnamed_files_cannot_be_made_the_name_is_removed_at_once(
    tmp_path, reader, no_shared_memory, monkeypatch
):
    monkeypatch.delattr(os, "O_TMPFILE")
    shared = publish(np.arange(1000.0), temp_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert reader("H.get().sum()", H=shared) == 499_500.0


def test_where_descriptors_cannot_be_reopened_a_named_private_file_is_used(
    tmp_path, reader, no_shared_memory, monkeypatch
):
    monkeypatch.setattr(storage, "_has_proc", lambda: False)
    shared = publish(np.arange(1000.0), temp_dir=str(tmp_path))
    (folder,) = tmp_path.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(next(folder.iterdir()).stat().st_mode) == 0o400
    assert reader("H.get().sum()", H=shared) == 499_500.0
    shared.release()
    assert list(tmp_path.iterdir()) == []
    assert isinstance(reader("H.get()", H=publish(1)), int)


NAMED_AT_EXIT = """
import sys
from anyfold._data import storage
from anyfold._data.files import publish
storage.available_memory = lambda: 0
storage.SMALL = -1
storage._has_proc = lambda: False
shared = publish(b"x" * 1000, temp_dir=sys.argv[1])
print(shared.path)
"""


def test_a_named_file_is_removed_at_exit(tmp_path):
    assert run(NAMED_AT_EXIT, str(tmp_path)).startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


KILLED = """
import pickle, sys, time
import numpy as np
from anyfold._data import storage
from anyfold._data.files import publish
in_memory = publish(np.ones(100_000))
storage.available_memory = lambda: 0
storage.SMALL = -1
in_file = publish(np.ones(100_000), temp_dir=sys.argv[1])
print(pickle.dumps((in_memory, in_file)).hex(), flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_of_an_owner_that_is_killed_and_readers_keep_what_they_have(tmp_path, reader):
    before = set(Path("/dev/shm").iterdir())  # among it may be what another process left that had this number
    owner = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    in_memory, in_file = pickle.loads(bytes.fromhex(owner.stdout.readline()))
    assert reader("(A.get().sum(), B.get().sum())", A=in_memory, B=in_file) == (100_000.0, 100_000.0)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert list(tmp_path.iterdir()) == []
    names = [path.name for path in set(Path("/dev/shm").iterdir()) - before]
    assert not [name for name in names if "anyfold" in name or str(owner.pid) in re.split(r"[-_.]", name)]
    assert reader("(A.get().sum(), B.get().sum())", A=in_memory, B=in_file) == (100_000.0, 100_000.0)
    for handle in (in_memory, in_file):
        with pytest.raises(SharedLost, match=f"process {owner.pid}.*publish the data again"):
            handle.get()


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_published_file_is_private_and_cannot_be_written_to(tmp_path, monkeypatch, in_memory):
    if not in_memory:
        monkeypatch.setattr(storage, "available_memory", lambda: 0)
        monkeypatch.setattr(storage, "SMALL", -1)
    shared = publish(np.zeros(1000), temp_dir=str(tmp_path))
    status = os.fstat(shared.descriptor)
    assert stat.S_IMODE(status.st_mode) == 0o400
    assert status.st_uid == os.getuid()
    assert not os.get_inheritable(shared.descriptor)
    with pytest.raises(OSError, match=r"Bad file descriptor|not permitted"):
        os.pwrite(shared.descriptor, b"x", 0)
    if in_memory and os.access(f"/proc/self/fd/{shared.descriptor}", os.W_OK):  # root
        descriptor = os.open(f"/proc/self/fd/{shared.descriptor}", os.O_RDWR)
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
        os.close(descriptor)


OTHER_USER = """
import os, sys
from anyfold._data.files import publish
from anyfold.errors import SharedLost
shared = publish(b"secret")
child = os.fork()
if not child:
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            shared.get()
        except SharedLost as error:
            sys.exit(0 if isinstance(error.__cause__, PermissionError) else 2)
        sys.exit(3)
    sys.exit(0 if shared.get() == b"secret" else 4)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_only_the_same_user_can_read_it():
    assert run(OTHER_USER) == "0\n"


def test_no_descriptor_is_left_after_many_objects():
    publish(1).get()
    gc.collect()
    before = len(open_files())
    for n in range(200):
        shared = publish(np.full(10, n))
        assert shared.get()[0] == n
        shared.release()
    assert len(open_files()) <= before


def test_release_may_be_repeated_and_ends_reading_in_this_process():
    shared = publish(np.zeros(10))
    held = shared.get()
    shared.release()
    shared.release()
    with pytest.raises(SharedLost, match="released"):
        shared.get()
    assert held.sum() == 0.0  # what a task holds stays valid


def test_an_object_is_released_with_its_handle_and_copies_own_nothing():
    count = published_files()
    shared = publish(np.zeros(10))
    copy = pickle.loads(pickle.dumps(shared))
    assert copy == shared
    assert published_files() == count + 1
    del copy
    gc.collect()
    assert shared.get().sum() == 0.0
    del shared
    gc.collect()
    assert published_files() == count


@pytest.mark.parametrize("intruder", ["another object", "pipe", "file", "nothing"])
def test_a_descriptor_that_leads_to_something_else_is_noticed(tmp_path, intruder):
    shared = publish(np.zeros(10))
    other = publish(np.ones(10)) if intruder == "another object" else None
    number = shared.descriptor
    shared.release()
    (tmp_path / "file").write_bytes(b"\0" * shared.nbytes)
    ends = os.pipe()
    target = {"pipe": ends[0], "another object": other and other.descriptor}.get(intruder)
    opened = os.open(tmp_path / "file", os.O_RDONLY)
    if intruder != "nothing":
        os.dup2(opened if target is None else target, number)
    try:
        with pytest.raises(SharedLost):
            shared.get()
    finally:
        for descriptor in {*ends, opened, *([number] if intruder != "nothing" else [])}:
            os.close(descriptor)


def test_reading_another_object_lets_go_of_those_that_were_released(reader):
    first, second, third = (publish(np.full(1000, n)) for n in range(3))
    assert reader("(A.get()[0], B.get()[0], mappings())", A=first, B=second) == (0, 1, 2)
    first.release()
    assert reader("(B.get()[0], C.get()[0], mappings())", B=second, C=third) == (1, 2, 2)
    second.release()
    third.release()
    reader("__import__('anyfold._data.files', fromlist=['x']).drop_released()")
    assert reader("mappings()") == 0
    drop_released()


def test_a_process_keeps_a_bounded_number_of_objects(reader):
    handles = [publish(n) for n in range(20)]
    for n, handle in enumerate(handles):
        assert reader("H.get()", H=handle) == n
    objects = [publish(np.full(10, n)) for n in range(20)]
    for n, handle in enumerate(objects):
        assert reader("H.get()[0]", H=handle) == n
    assert reader("mappings()") == 16
    assert reader("H.get()[0]", H=objects[0]) == 0  # mapped again


def test_many_threads_map_an_object_once():
    shared = publish({"X": np.arange(100_000.0), "text": [str(n) for n in range(10_000)]})
    start, seen = threading.Barrier(8), []

    def read() -> None:
        start.wait()
        seen.append(shared.get())

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len({id(obj) for obj in seen}) == 1


FORKED = """
import os, sys, threading
import numpy as np
from anyfold._data import files
from anyfold._data.files import publish

shared, unread = publish(np.arange(10.0)), publish(np.ones(3))
shared.get()
inherited = os.fstat(unread.descriptor).st_ino
files._kept._lock.acquire()  # as another thread might hold it in the moment of the fork
child = os.fork()
if not child:
    for number in os.listdir("/proc/self/fd"):
        if os.path.exists(f"/proc/self/fd/{number}"):
            assert os.stat(f"/proc/self/fd/{number}").st_ino != inherited
    assert shared.get().sum() == 45.0 and unread.get().sum() == 3.0
    shared.release()
    del unread
    own = publish(np.zeros(2))
    assert own.owner == os.getpid() and own.get().sum() == 0.0
    sys.exit(0)  # runs the exit handlers
files._kept._lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
files._kept.drop(lambda key, opened: True)
assert shared.get().sum() == 45.0 and unread.get().sum() == 3.0
print("fine")
"""


def test_a_forked_process_reads_but_neither_keeps_nor_releases_what_its_parent_owns():
    assert run(FORKED) == "fine\n"


def test_matching_notices_every_change_and_only_changes():
    X = np.arange(3_000_001.0)
    frame = pd.DataFrame(
        {"a": np.arange(5.0), "t": list("abcde"), "o": pd.Series(["x", 1, None, "y", 2.5], dtype=object)}
    )
    data = {"X": X, "frame": frame, "texts": ["a", "b"], "n": 3}
    shared = publish(data)
    assert shared.matches(data)
    assert shared.matches({"X": X.copy(), "frame": frame, "texts": data["texts"], "n": 3})
    frame.describe(), frame["t"].str.len(), repr(frame)
    assert shared.matches(data)

    def changed(change, undo):
        change()
        noticed = not shared.matches(data)
        undo()
        assert shared.matches(data)
        return noticed

    for position in (0, 12_345, 131_072, 3_000_000):
        assert changed(
            lambda p=position: X.__setitem__(p, -1.0), lambda p=position: X.__setitem__(p, float(p))
        )
    assert changed(lambda: np.negative(X, out=X), lambda: np.negative(X, out=X))
    assert changed(lambda: data["texts"].append("c"), lambda: data["texts"].pop())
    assert changed(lambda: data.__setitem__("n", 3.0), lambda: data.__setitem__("n", 3))
    for column, value in (("a", 9.0), ("t", "z"), ("o", "z")):
        other = frame.copy()
        other.loc[0, column] = value
        assert changed(lambda f=other: data.__setitem__("frame", f), lambda: data.__setitem__("frame", frame))
    shared.release()
    with pytest.raises(SharedLost):
        shared.matches(data)


def test_a_change_of_order_is_a_change():
    array = np.arange(12.0).reshape(3, 4)
    shared = publish(array)
    assert not shared.matches(np.asfortranarray(array))
    assert not shared.matches(array.astype(">f8"))
    assert not shared.matches(array[:2])


NO_ROOM = """
import resource, sys
import numpy as np
from anyfold._data import storage
from anyfold._data.files import publish
from anyfold.errors import InvalidSettingError
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    publish(np.zeros(1_000_000), temp_dir=sys.argv[1])
except InvalidSettingError as error:
    print(error)
"""


def test_a_full_folder_is_named_with_what_to_do(tmp_path):
    message = run(NO_ROOM, str(tmp_path))
    for part in ("8.0 MB", str(tmp_path), "are free", "File too large", "set ANYFOLD_TEMP_DIR"):
        assert part in message
    assert list(tmp_path.iterdir()) == []


def test_no_room_in_the_middle_of_writing_leaves_nothing(tmp_path, monkeypatch, no_shared_memory):
    def full(descriptor, data, offset):
        raise OSError(28, "No space left on device")

    before = len(open_files())
    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(storage, "_has_proc", lambda: False)
    with pytest.raises(InvalidSettingError, match="No space left on device"):
        publish(np.zeros(1000), temp_dir=str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    assert len(open_files()) == before


def test_a_folder_that_does_not_exist_is_named(tmp_path, no_shared_memory):
    with pytest.raises(InvalidSettingError, match=r"missing.*No such file.*ANYFOLD_TEMP_DIR"):
        publish(np.zeros(1000), temp_dir=str(tmp_path / "missing"))


def test_an_object_goes_to_shared_memory_up_to_half_of_what_is_available(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "SMALL", -1)
    array = np.zeros(1000)
    nbytes = publish(array).nbytes
    for available, links in ((2 * nbytes, 0), (2 * nbytes - 2, 1)):
        monkeypatch.setattr(storage, "available_memory", lambda n=available: n)
        shared = publish(array, temp_dir=str(tmp_path))
        assert len([link for link in open_files() if link.startswith(str(tmp_path))]) == links
        shared.release()


def opened(descriptor):
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def replica_of(shared, temp_dir, piece=1 << 16):
    replica = Replica(shared.key, shared.nbytes, temp_dir=str(temp_dir))
    for offset in reversed(range(0, shared.nbytes, piece)):
        replica.write(offset, shared.read(offset, piece))
    return replica.finish()


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_replica_made_of_pieces_outlives_the_original_and_goes_with_its_handle(
    tmp_path, monkeypatch, reader, in_memory
):
    shared = publish(np.arange(100_000.0))
    before = open_files()
    if not in_memory:
        monkeypatch.setattr(storage, "available_memory", lambda: 0)
        monkeypatch.setattr(storage, "SMALL", -1)
    replica = replica_of(shared, tmp_path)
    assert (len(open_files()), replica.is_readable()) == (len(before) + 1, True)
    shared.release()
    assert not shared.is_readable()
    assert reader("H.get().sum()", H=replica) == np.arange(100_000.0).sum()
    replica.release()
    assert not replica.is_readable()


def test_a_replica_that_is_never_finished_leaves_nothing(tmp_path):
    shared = publish(np.arange(1000.0))
    before = open_files()
    Replica(shared.key, shared.nbytes).write(0, shared.read(0, 100))
    assert open_files() == before


def test_what_no_longer_fits_into_memory_goes_on_in_the_folder(tmp_path, monkeypatch):
    shared = publish(np.arange(100_000.0))
    write = os.pwrite

    def full_after_half(descriptor, data, offset):
        if offset < shared.nbytes // 2 and "memfd" in str(opened(descriptor)):
            raise OSError(28, "No space left on device")
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full_after_half)
    replica = replica_of(shared, tmp_path)
    assert opened(replica.descriptor).is_relative_to(tmp_path)
    assert replica.matches(np.arange(100_000.0))
