"""What a system takes of the machine: processor time and memory of its processes and of all that they started."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

import psutil


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the processor time, user's and kernel's, that the trees of processes below ``roots`` have taken so far."""

    def taken(process: psutil.Process) -> float:
        times = process.cpu_times()
        return times.user + times.system

    return _sum(roots, taken)


def memory_mebibytes(roots: Iterable[int]) -> float:
    """Return the memory of the trees of processes below ``roots``, in MiB; pages that processes share count once."""
    return _sum(roots, lambda process: float(process.memory_full_info().pss)) / (1 << 20)


def _sum(roots: Iterable[int], figure: Callable[[psutil.Process], float]) -> float:
    total = 0.0
    for root in map(psutil.Process, roots):
        total += figure(root)
        for child in root.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it had a short errand
                total += figure(child)
    return total
