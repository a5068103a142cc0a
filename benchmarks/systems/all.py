"""The systems, in the order in which they are measured and shown; variants are measured when they are named."""

from __future__ import annotations

from typing import Final

from benchmarks.systems.base import System
from benchmarks.systems.echo import ECHO
from benchmarks.systems.envoy_echo import ENVOY_ECHO
from benchmarks.systems.exported_torchserve import OURS_TORCHSERVE, TORCHSERVE_EXPORTED
from benchmarks.systems.mlserver import MLSERVER
from benchmarks.systems.ours import ONE_PROCESS, TWO_PROCESSES, VARIANTS
from benchmarks.systems.plain_pair import PLAIN_PAIR
from benchmarks.systems.seed import SEED
from benchmarks.systems.torchserve import TORCHSERVE
from benchmarks.systems.triton import TRITON

SYSTEMS: Final[tuple[System, ...]] = (
    TWO_PROCESSES,
    ONE_PROCESS,
    ENVOY_ECHO,
    ECHO,
    PLAIN_PAIR,
    TRITON,
    TORCHSERVE,
    TORCHSERVE_EXPORTED,
    OURS_TORCHSERVE,
    MLSERVER,
    SEED,
)
NAMED: Final[dict[str, System]] = {system.name: system for system in (*SYSTEMS, *VARIANTS)}
