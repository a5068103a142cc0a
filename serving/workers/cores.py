"""The processor cores that this process may use.

The facts about cgroups are those of the kernel's ``Documentation/admin-guide/cgroup-v2.rst`` (``cpu.max``) and
``Documentation/scheduler/sched-bwc.rst`` (``cpu.cfs_quota_us``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")


def usable_cores(root: Path = _CGROUP_ROOT, own: Path = _OWN_CGROUP) -> int:
    """Return how many cores are worth a process each.

    These are the cores that this process is bound to, or fewer if its container gets less.

    Args:
        root: where cgroups are mounted.
        own: file that names the cgroups of this process.
    """
    shares = [float(len(os.sched_getaffinity(0))), *_quotas(root, own)]
    return max(1, math.floor(min(shares)))


def _quotas(root: Path, own: Path) -> Iterator[float]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _of_second_version(root, path)
        elif "cpu" in controllers.split(","):
            for mounted in (controllers, "cpu"):
                yield from _of_first_version(root / mounted, path)


def _of_second_version(root: Path, path: str) -> Iterator[float]:
    for folder in _levels(root, path):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal():
            yield int(quota) / int(period)


def _of_first_version(root: Path, path: str) -> Iterator[float]:
    for folder in _levels(root, path):
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        # The quota is -1 if none is set.
        if quota.isdecimal() and period.isdecimal():
            yield int(quota) / int(period)


def _levels(root: Path, path: str) -> Iterator[Path]:
    """Return the cgroup's folder and those above it, up to the root of the mount."""
    # In a container the path may be that of the host, which is missing there; the root is then the container's cgroup.
    folder = root / path.lstrip("/")
    for level in (folder, *folder.parents):
        if level != root and root not in level.parents:
            break
        yield level


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
