"""The control group's limits, read from made-up trees of both versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainlab import limits

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
    assert limits.memory_limit(*made) == 8 * GIB
    assert limits.memory_used(*made) == 2 * GIB
    assert limits.cpu_limit(*made) == 1.5


def test_the_tightest_limit_above_counts(tree):
    files = {
        "a/memory.max": 2 * GIB,
        "a/b/memory.max": "max",
        "a/cpu.max": "max 100000",
        "memory.max": 4 * GIB,
    }
    made = tree("0::/a/b\n", files | {"a/b/cpu.max": "50000 100000"})
    assert limits.memory_limit(*made) == 2 * GIB
    assert limits.cpu_limit(*made) == 0.5


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
    assert limits.memory_limit(*made) == 6 * GIB
    assert limits.memory_used(*made) == GIB
    assert limits.cpu_limit(*made) == 2


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
    assert limits.memory_limit(*made) is None
    assert limits.cpu_limit(*made) is None
    assert limits.memory_used(*made) is None


def test_this_machine_s_own_tree_can_be_read():
    assert limits.memory_limit() is None or limits.memory_limit() > 0
    assert limits.cpu_limit() is None or limits.cpu_limit() > 0
