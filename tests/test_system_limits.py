"""The control group's limits, read from made-up trees of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainlab import system

GIB = 1 << 30


@pytest.fixture
def tree(tmp_path: Path):
    """Return a function that writes a tree, and gives what the readers take."""

    def write(own: str, files: dict[str, object]) -> tuple[Path, Path]:
        for name, content in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        (tmp_path / "own").write_text(own)
        return tmp_path / "cgroup", tmp_path / "own"

    return write


def test_a_container_s_own_root_holds_its_limits_in_version_2(tree):
    files = {"memory.max": 8 * GIB, "cpu.max": "150000 100000", "memory.current": 3 * GIB}
    made = tree("0::/\n", files | {"memory.stat": f"anon 5\ninactive_file {GIB}"})
    assert system.memory_limit(*made) == 8 * GIB
    assert system.memory_used(*made) == 2 * GIB
    assert system.cpu_limit(*made) == 1.5


def test_the_tightest_limit_above_counts(tree):
    files = {
        "a/memory.max": 2 * GIB,
        "a/b/memory.max": "max",
        "a/cpu.max": "max 100000",
        "memory.max": 4 * GIB,
    }
    made = tree("0::/a/b\n", files | {"a/b/cpu.max": "50000 100000"})
    assert system.memory_limit(*made) == 2 * GIB
    assert system.cpu_limit(*made) == 0.5


def test_version_1_has_a_folder_for_each_controller(tree):
    own = "9:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n1:name=systemd:/docker/abc\n"
    files = {
        "memory/memory.limit_in_bytes": 6 * GIB,  # the container's, mounted as the root
        "memory/memory.usage_in_bytes": 2 * GIB,
        "memory/memory.stat": f"total_inactive_file {GIB}",
        "cpu/cpu.cfs_quota_us": 200000,
        "cpu/cpu.cfs_period_us": 100000,
    }
    made = tree(own, files)
    assert system.memory_limit(*made) == 6 * GIB
    assert system.memory_used(*made) == GIB
    assert system.cpu_limit(*made) == 2


def test_cpu_time_and_disk_are_the_container_s_own_in_version_2(tree):
    io = "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=5 dios=1\n7:0 rbytes=100 wbytes=0 rios=1 wios=0"
    files = {"cpu.stat": "usage_usec 2500000\nuser_usec 2000000", "io.stat": io}
    made = tree("0::/\n", files | {"cgroup.events": "populated 1"})
    assert system.cpu_seconds(*made) == 2.5
    assert system.disk_bytes(*made) == (4196, 8192)


def test_cpu_time_and_disk_are_the_container_s_own_in_version_1(tree):
    io = "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 1\n254:0 Total 12288\n7:0 Read 100\nTotal 12388"
    files = {
        "cpuacct/cpuacct.usage": 2_500_000_000,
        "blkio/blkio.throttle.io_service_bytes_recursive": io,
    }
    made = tree("9:cpu,cpuacct:/docker/abc\n7:blkio:/docker/abc\n0::/docker/abc\n", files)
    assert system.cpu_seconds(*made) == 2.5
    assert system.disk_bytes(*made) == (4196, 8192)


@pytest.mark.parametrize(
    ("own", "files", "counted"),
    [
        ("0::/\n", {"io.stat": ""}, (0, 0)),  # nothing read or written yet
        ("0::/\n", {"cpu.stat": "nr_periods 0"}, None),
        ("7:blkio:/docker/abc\n", {"blkio/blkio.throttle.io_service_bytes_recursive": "Total 0"}, None),
    ],
)
def test_what_a_group_does_not_count_is_unknown(tree, own, files, counted):
    made = tree(own, files)
    assert system.disk_bytes(*made) == counted
    assert system.cpu_seconds(*made) is None


V1 = "4:memory:/docker/abc\n2:cpuacct:/docker/abc\n0::/docker/abc\n"


@pytest.mark.parametrize(
    ("own", "first", "files", "inside"),
    [
        (V1, V1, {}, True),
        ("0::/\n", "0::/\n", {"cgroup.events": "populated 1"}, True),
        ("0::/\n", "0::/\n", {"cpu.stat": "usage_usec 1"}, False),  # a machine's topmost group
        ("0::/user.slice/session-1.scope\n", "0::/init.scope\n", {"cpu.stat": ""}, False),
        ("2:cpuacct:/\n", "2:cpuacct:/\n", {}, False),
        (V1, "", {}, False),  # process 1 is hidden
        ("", "", {}, False),
    ],
)
def test_a_container_is_told_by_process_1_being_in_the_same_group(tree, own, first, files, inside):
    root, mine = tree(own, files)
    path = mine.with_name("first")
    path.write_text(first)
    assert system.in_container(root, mine, path) is inside


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/\n", {"memory.max": "max", "cpu.max": "max 100000"}),
        (
            "5:memory:/\n6:cpu:/\n",
            {
                "memory/memory.limit_in_bytes": 9223372036854771712,
                "cpu/cpu.cfs_quota_us": -1,
                "cpu/cpu.cfs_period_us": 100000,
            },
        ),
        ("", {}),
    ],
)
def test_no_limit_is_none(tree, own, files):
    made = tree(own, files)
    assert system.memory_limit(*made) is None
    assert system.cpu_limit(*made) is None
    assert system.memory_used(*made) is None
