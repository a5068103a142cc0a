"""Triton's perf_analyzer: a load generator that queries a server of the Open Inference Protocol for its models."""

from __future__ import annotations

import ctypes.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peers.environments import CannotInstall, environment

_ENVIRONMENT: Final = "perf_analyzer"


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """The program, and the environment variables that it needs."""

    program: Path
    settings: dict[str, str]


def perf_analyzer() -> PerfAnalyzer:
    """Return the program, which is installed if necessary.

    Raises:
        CannotInstall: the program cannot be installed on this machine.
    """
    if ctypes.util.find_library("b64") is None:
        raise CannotInstall("perf_analyzer needs libb64; on Debian: apt-get install libb64-0d")
    peer = environment(_ENVIRONMENT)
    # The program links CUDA, although no GPU metrics are requested.
    cuda = peer.packages / "nvidia" / "cuda_runtime" / "lib"
    return PerfAnalyzer(peer.program("perf_analyzer"), {"LD_LIBRARY_PATH": str(cuda)})
