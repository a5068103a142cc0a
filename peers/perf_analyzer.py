"""Triton's perf_analyzer: a load generator that asks a server of the Open Inference Protocol what it serves."""

from __future__ import annotations

import ctypes.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peers.environments import CannotInstall, environment

_ENVIRONMENT: Final = "perf_analyzer"


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """The program, and the variables of the environment that it needs."""

    program: Path
    settings: dict[str, str]


def perf_analyzer() -> PerfAnalyzer:
    """Return the program, installed.

    Raises:
        CannotInstall: it cannot be had on this machine.
    """
    if ctypes.util.find_library("b64") is None:
        raise CannotInstall("perf_analyzer needs libb64; on Debian: apt-get install libb64-0d")
    peer = environment(_ENVIRONMENT)
    # Linked, though no figure of a GPU is asked for.
    cuda = peer.packages / "nvidia" / "cuda_runtime" / "lib"
    return PerfAnalyzer(peer.program("perf_analyzer"), {"LD_LIBRARY_PATH": str(cuda)})
