"""Memory of this process: its limit, and its return to the system.

The facts about cgroups are from the kernel's ``Documentation/admin-guide/``, ``cgroup-v2.rst`` and
``cgroup-v1/memory.rst``; those about malloc are from glibc's ``mallopt(3)``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger()

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
OWN_CGROUP: Final = Path("/proc/self/cgroup")

# Share of the process's memory limit; the rest is for Python, torch, requests in flight, and a model being built.
_SHARE_FOR_MODELS: Final = 0.6
_RESERVED_BYTES: Final = 400 << 20
_LEAST_BYTES: Final = 64 << 20

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_MMAP_THRESHOLD_BYTES: Final = 32 << 20
_TRIM_THRESHOLD_BYTES: Final = 256 << 20
_ARENAS: Final = 2


def memory_limit(own_cgroup: Path = OWN_CGROUP, cgroup_root: Path = CGROUP_ROOT) -> int:
    """Return the bytes that this process may take: the lowest limit of its cgroups, else the machine's memory.

    Args:
        own_cgroup: file that names the cgroups of this process.
        cgroup_root: folder in which cgroups are mounted.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_limits(own_cgroup, cgroup_root)])


def default_budget(limit: int) -> int:
    """Return the bytes for models in a process that may take ``limit`` bytes."""
    return max(_LEAST_BYTES, min(int(limit * _SHARE_FOR_MODELS), limit - _RESERVED_BYTES))


def keep_memory_returnable() -> None:
    """Make malloc return the memory of freed models to the system. Call once, at start; does nothing without glibc.

    Models live in malloc's heaps, so that a loaded model reuses the memory of an evicted one without requesting pages
    from the system. A small number of heaps keeps the holes together; :func:`give_memory_back` returns them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        log.info("memory of evicted models may stay with the process: this C library has no mallopt")
        return
    for option, value in (
        (_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES),
        (_M_ARENA_MAX, _ARENAS),
    ):
        mallopt(option, value)


def give_memory_back() -> None:
    """Return malloc's free memory to the system. Blocks during the search; call it from a thread."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _cgroup_limits(own_cgroup: Path, cgroup_root: Path) -> list[int]:
    """Return the limits of this process's cgroups, of either version, and of their ancestors."""
    try:
        lines = own_cgroup.read_text().splitlines()
    except OSError:
        return []
    limits: list[int] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += _limits(cgroup_root, path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(cgroup_root / "memory", path, "memory.limit_in_bytes")
    return limits


def _limits(root: Path, path: str, file: str) -> Iterator[int]:
    # In a container the path may be the host's, which does not exist here; the root is then the container's own cgroup.
    folder = root / path.lstrip("/")
    for level in (folder, *folder.parents):
        if level != root and root not in level.parents:
            break
        try:
            text = (level / file).read_text().strip()
        except OSError:
            continue
        if text != "max":
            yield int(text)
