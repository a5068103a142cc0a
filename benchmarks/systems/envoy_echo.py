"""Bare Envoy with an application that does nothing: what the Envoy transport costs before anything of ours runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.systems.base import Running
from benchmarks.systems.echo import echoing
from peers.programs import free_ports

_APPLICATION: Final = "benchmarks.systems.programs.envoy_echo:application"


@dataclass(frozen=True, slots=True)
class EnvoyEcho:
    """One hop, no model, no gRPC library."""

    name: str = "envoy-echo"
    title: str = "bare Envoy echo"
    hops: int = 1
    warm_up_seconds: float = 1.0

    def install(self) -> None:
        """Nothing: the harness's environment has it."""

    @contextmanager
    def start(self, workplace: Path) -> Iterator[Running]:
        """Serve echoes."""
        (port,) = free_ports(1)
        command = (str(Path(sys.executable).with_name("pyvoy")), _APPLICATION, "--port", str(port))
        with echoing(command, port, workplace / "envoy-echo.log") as it:
            yield it


ENVOY_ECHO: Final = EnvoyEcho()
