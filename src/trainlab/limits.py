"""What the kernel lets this process use, and what it has used: its control group, version 1 or 2.

A container sees the whole machine in /proc; its own share is written in /sys/fs/cgroup.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
FIRST = Path("/proc/1/cgroup")
UNLIMITED = 1 << 60  # bytes; version 1 writes a number near 2**63 for none


def memory_limit(root: Path = CGROUPS, own: Path = OWN) -> int | None:
    """Return the bytes of memory that this process's group and those above it allow, None for no limit."""
    files = {"memory": "memory.limit_in_bytes", "": "memory.max"}
    limits = [int(text) for text in _values(files, root, own) if text.isdigit()]
    return min((limit for limit in limits if limit < UNLIMITED), default=None)


def memory_used(root: Path = CGROUPS, own: Path = OWN) -> int | None:
    """Return the bytes that this process's group uses, less file cache that gives way; None if unknown."""
    names = {
        "memory": ("memory.usage_in_bytes", "total_inactive_file"),
        "": ("memory.current", "inactive_file"),
    }
    for folder, controller in _folders("memory", root, own):
        usage, cache = names[controller]
        if text := _read(folder / usage):
            return max(int(text) - int(_table(folder / "memory.stat").get(cache, 0)), 0)
    return None


def oom_kills(root: Path = CGROUPS, own: Path = OWN) -> int | None:
    """Return how many processes of this group the kernel has killed for memory so far; None if unknown."""
    names = {"memory": "memory.oom_control", "": "memory.events"}
    for folder, controller in _folders("memory", root, own):
        counts = _table(folder / names[controller])
        if "oom_kill" in counts:
            return int(counts["oom_kill"])
    return None


def cpu_limit(root: Path = CGROUPS, own: Path = OWN) -> float | None:
    """Return how many CPUs' time this process's group and those above it allow, None for no limit."""
    limits = []
    for folder, controller in _folders("cpu", root, own):
        if controller:
            words = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
        else:
            words = _read(folder / "cpu.max").split()
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def cpu_seconds(root: Path = CGROUPS, own: Path = OWN) -> float | None:
    """Return the CPU time that this process's group has used so far, in seconds; None if unknown."""
    for folder, controller in _folders("cpuacct", root, own):
        if controller and (text := _read(folder / "cpuacct.usage")):
            return int(text) / 1e9
        if used := _table(folder / "cpu.stat").get("usage_usec"):
            return int(used) / 1e6
    return None


def disk_bytes(root: Path = CGROUPS, own: Path = OWN) -> tuple[int, int] | None:
    """Return the bytes that this process's group has read from and written to disks; None if unknown.

    Version 1 leaves out what is written later from memory, and many kernels there count nothing at all.
    """
    for folder, controller in _folders("blkio", root, own):
        if controller:  # lines of a device, a kind and a number; sums have no device
            text = _read(folder / "blkio.throttle.io_service_bytes_recursive")
            counts = re.findall(r"^\S+ (Read|Write) (\d+)$", text, re.MULTILINE)
        else:
            counts = re.findall(r"\b([rw])bytes=(\d+)", _read(folder / "io.stat"))
        if counts or (folder / "io.stat").exists():  # empty before the first byte
            read = sum(int(count) for kind, count in counts if kind in ("Read", "r"))
            return read, sum(int(count) for _, count in counts) - read
    return None


def in_container(root: Path = CGROUPS, own: Path = OWN, first: Path = FIRST) -> bool:
    """Say whether this process's group is a container's own, and no one else's: process 1 is in it too.

    On a machine without containers process 1 is in another group, or everything is in the topmost one.
    """
    text = _read(own)
    if not text or text != _read(first):
        return False
    groups = [line.split(":", 2)[1:] for line in text.splitlines()]
    nested = any("cpuacct" in names.split(",") and path != "/" for names, path in groups)
    # version 2 shows a container its group as the topmost one; only a machine's has no such file
    return nested or (root / "cgroup.events").exists()


def _table(path: Path) -> dict[str, str]:
    """Return a file of names and numbers, one pair a line."""
    return dict(line.split(maxsplit=1) for line in _read(path).splitlines() if " " in line)


def _values(files: dict[str, str], root: Path, own: Path) -> Iterator[str]:
    for folder, controller in _folders("memory", root, own):
        yield _read(folder / files[controller])


def _folders(controller: str, root: Path, own: Path) -> Iterator[tuple[Path, str]]:
    """Yield the folders of this process's group and of those above it, with the controller ('' in version 2).

    Inside a container the path in /proc may be the host's, and the mounted folder the group's own: what does
    not exist is left out.
    """
    for line in _read(own).splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        top = root / controller if names else root
        group = Path(path.lstrip("/"))
        for each in (group, *group.parents):
            if (top / each).is_dir() and ".." not in each.parts:
                yield top / each, controller if names else ""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
