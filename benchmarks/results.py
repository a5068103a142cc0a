"""Results: figures by round and system, stored as JSON, with medians and ratios."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import psutil
from pydantic import TypeAdapter

from benchmarks.load import Latency


class Part(StrEnum):
    """Part of a benchmark that can be measured for a system."""

    UNARY = "unary"
    """One document per request, at several numbers of requests in flight."""
    BATCHES = "batches"
    """Many documents per request."""
    CONNECTIONS = "connections"
    """Many connections with one request each."""
    TENANTS = "tenants"
    """Many models in memory."""


class Kind(StrEnum):
    """Kind of measured subject, by which tables group their rows."""

    OURS = "ours"
    """The services with their default settings."""
    VARIANT = "variant"
    """The services with an extra switched on."""
    FORMER = "former"
    """The services of an older commit."""
    PEER = "peer"
    """Anything else that answers requests."""
    CLIENT = "client"
    """A client, which makes requests; all other kinds answer them."""


@dataclass(frozen=True, slots=True)
class LevelFigures:
    """One system, one round, one number of requests in flight."""

    requests_per_second: float
    latency: Latency
    cpu_microseconds: float
    """Processor time of all processes of the system per request, in microseconds."""


@dataclass(frozen=True, slots=True)
class SystemFigures:
    """One system in one round."""

    levels: dict[int, LevelFigures]
    """Figures by requests in flight."""
    memory_mebibytes: float
    """Memory of all processes of the system after the load, in MiB."""
    connections: LevelFigures | None = None
    """Figures over many connections with one request each."""
    batch_documents_per_second: float | None = None
    one_tenant_per_second: float | None = None
    many_tenants_per_second: float | None = None


Figure = Callable[[SystemFigures], float | None]
"""Extracts a number from the figures of a round; returns ``None`` if it was not measured."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Parts, levels and durations of the measurements."""

    rounds: int = 5
    seconds: float = 3.0
    """Approximate length of each measurement, in seconds."""
    levels: tuple[int, ...] = (1, 8, 64, 256)
    """Numbers of requests in flight."""
    connections: int = 500
    """Number of connections that have one request each."""
    tenants: int = 1000
    batch_in_flight: int = 8
    parts: tuple[Part, ...] = tuple(Part)


@dataclass(frozen=True, slots=True)
class Machine:
    """Machine that the results were measured on."""

    processor: str
    cores: int
    memory_gibibytes: float
    system: str
    python: str

    @classmethod
    def this(cls) -> Machine:
        """Return this machine."""
        return cls(
            _processor(),
            os.cpu_count() or 0,
            round(psutil.virtual_memory().total / (1 << 30), 1),
            f"{platform.system()} {platform.release()}",
            f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
            f"{' of the operating system' if sys.base_prefix == '/usr' else ''}",
        )


@dataclass(frozen=True, slots=True)
class About:
    """A system, as tables show it."""

    title: str
    hops: int
    kind: Kind = Kind.PEER


@dataclass(slots=True)
class Results:
    """All results."""

    day: str
    """Day of the measurement, as year-month-day."""
    machine: Machine
    plan: Plan
    systems: dict[str, About]
    """Selected systems by name, in order."""
    transport: str = ""
    """Transport of our services."""
    rounds: list[dict[str, SystemFigures]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Reason why a system was not measured, or not to the end, by name."""

    def measured(self, *kinds: Kind) -> list[str]:
        """Return the names of systems of ``kinds`` (of any kind if empty) that have figures, in order."""
        return [
            name
            for name, about in self.systems.items()
            if (not kinds or about.kind in kinds) and any(name in figures for figures in self.rounds)
        ]

    def values(self, name: str, figure: Figure) -> list[float]:
        """Return a figure of a system, round by round."""
        return [value for _, value in self._by_round(name, figure)]

    def median(self, name: str, figure: Figure) -> float | None:
        """Return the median over the rounds, or ``None`` without figures."""
        values = self.values(name, figure)
        return statistics.median(values) if values else None

    def ratios(self, name: str, figure: Figure, other: str, other_figure: Figure) -> list[float]:
        """Return the ratio of one system's figure to another's, within each round that has both."""
        others = dict(self._by_round(other, other_figure))
        return [value / others[number] for number, value in self._by_round(name, figure) if number in others]

    def _by_round(self, name: str, figure: Figure) -> Iterator[tuple[int, float]]:
        for number, figures in enumerate(self.rounds):
            value = figure(figures[name]) if name in figures else None
            if value is not None:
                yield number, value

    def to_json(self) -> bytes:
        """Return the results as JSON, for a file."""
        return _ADAPTER.dump_json(self, indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Results:
        """Return the results that :meth:`to_json` wrote.

        Raises:
            ValueError: ``data`` has another form.
        """
        return _ADAPTER.validate_json(data)


def at(in_flight: int, of: Callable[[LevelFigures], float]) -> Figure:
    """Return the figure that extracts a number from one level."""

    def figure(figures: SystemFigures) -> float | None:
        level = figures.levels.get(in_flight)
        return None if level is None else of(level)

    return figure


def throughput(in_flight: int) -> Figure:
    """Return the figure for requests per second."""
    return at(in_flight, lambda level: level.requests_per_second)


def mean_latency(in_flight: int) -> Figure:
    """Return the figure for the mean latency, in milliseconds."""
    return at(in_flight, lambda level: level.latency.mean)


def p99_latency(in_flight: int) -> Figure:
    """Return the figure for the latency that 1 % of the requests exceed, in milliseconds."""
    return at(in_flight, lambda level: level.latency.p99)


def cpu(in_flight: int) -> Figure:
    """Return the figure for the processor time per request, in microseconds."""
    return at(in_flight, lambda level: level.cpu_microseconds)


def connections_throughput(figures: SystemFigures) -> float | None:
    """Return the requests per second over many connections with one request each."""
    return None if figures.connections is None else figures.connections.requests_per_second


def memory(figures: SystemFigures) -> float:
    """Return the memory of a system, in MiB."""
    return figures.memory_mebibytes


def batch_throughput(figures: SystemFigures) -> float | None:
    """Return the documents per second of batches."""
    return figures.batch_documents_per_second


def one_tenant(figures: SystemFigures) -> float | None:
    """Return the requests per second for one tenant, measured with the load generator for many tenants."""
    return figures.one_tenant_per_second


def many_tenants(figures: SystemFigures) -> float | None:
    """Return the requests per second for many tenants."""
    return figures.many_tenants_per_second


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


_ADAPTER: Final = TypeAdapter(Results)
