"""The least of what the machine and the control groups leave is what is available."""

from __future__ import annotations

import psutil
import pytest

from anyfold._data.memory import available_memory, format_bytes

GB = 1_000_000_000


@pytest.fixture
def machine(tmp_path):
    """Return a function that writes files of ``/proc`` and ``/sys`` into a folder."""

    def write(files: dict[str, str]):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


MEMINFO = {"proc/meminfo": f"MemTotal: 64000000 kB\nMemFree: 1 kB\nMemAvailable: {8 * GB // 1024} kB\n"}
V2 = {"proc/self/cgroup": "0::/a/b\n"}


def test_without_control_groups_it_is_what_the_kernel_reports(machine):
    assert available_memory(machine(MEMINFO)) == pytest.approx(8 * GB, abs=1024)


def test_a_group_of_version_2_leaves_its_limit_less_what_it_uses_and_cannot_give_back(machine):
    group = {
        "sys/fs/cgroup/a/b/memory.max": "5000000000\n",
        "sys/fs/cgroup/a/b/memory.current": "3000000000\n",
        "sys/fs/cgroup/a/b/memory.stat": "anon 1\ninactive_file 500000000\n",
    }
    assert available_memory(machine(MEMINFO | V2 | group)) == 2_500_000_000


def test_the_tightest_group_above_counts(machine):
    groups = {
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/b/memory.current": "1000\n",
        "sys/fs/cgroup/a/memory.max": "2000000000\n",
        "sys/fs/cgroup/a/memory.current": "1500000000\n",
    }
    assert available_memory(machine(MEMINFO | V2 | groups)) == 500_000_000


def test_the_root_counts_where_a_container_sees_only_its_own_group(machine):
    group = {"sys/fs/cgroup/memory.max": "1000000000\n", "sys/fs/cgroup/memory.current": "100\n"}
    assert available_memory(machine(MEMINFO | V2 | group)) == 999_999_900


def test_a_group_of_version_1_counts_in_the_same_way(machine):
    group = {
        "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/\n",
        "sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "4000000000\n",
        "sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes": "3000000000\n",
        "sys/fs/cgroup/memory/docker/1/memory.stat": "inactive_file 1\ntotal_inactive_file 1000000000\n",
    }
    assert available_memory(machine(MEMINFO | group)) == 2_000_000_000


def test_a_group_without_a_real_limit_does_not_count(machine):
    group = {
        "proc/self/cgroup": "4:memory:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "3000000000\n",
    }
    assert available_memory(machine(MEMINFO | group)) == pytest.approx(8 * GB, abs=1024)


def test_a_group_that_is_over_its_limit_leaves_nothing(machine):
    group = {"sys/fs/cgroup/a/b/memory.max": "1000\n", "sys/fs/cgroup/a/b/memory.current": "2000\n"}
    assert available_memory(machine(MEMINFO | V2 | group)) == 0


def test_half_of_the_memory_is_assumed_where_nothing_is_known(tmp_path):
    assert available_memory(tmp_path) == psutil.virtual_memory().total // 2


def test_this_machine_has_some_and_not_more_than_all():
    assert 0 < available_memory() <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (200_000_000, "200.0 MB"), (3 * 10**12, "3.0 TB")],
)
def test_sizes_are_written_for_people(n, text):
    assert format_bytes(n) == text
