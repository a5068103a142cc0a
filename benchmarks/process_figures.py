"""Resource use of a system: processor time and memory of its processes and of all that they started."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the user and kernel time that the process trees below ``roots`` have used so far, in seconds."""

    def taken(process: psutil.Process) -> float:
        times = process.cpu_times()
        return times.user + times.system

    return _sum(roots, taken)


def memory_mebibytes(roots: Iterable[int]) -> float:
    """Return the memory of the process trees below ``roots``, in MiB; pages that processes share count once."""
    return _sum(roots, lambda process: float(process.memory_full_info().pss)) / (1 << 20)


def _sum(roots: Iterable[int], figure: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for root in map(psutil.Process, roots):
        total += figure(root)
        for child in root.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # the child has already exited
                total += figure(child)
    return total
