"""All subjects of measurement, in display order; some are measured only when named."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from benchmarks.clients import GRPC_STUB, INTENT_CLIENT
from benchmarks.systems.base import Subject
from benchmarks.systems.echo import ECHO
from benchmarks.systems.engine import ENGINE_ECHO, TURN
from benchmarks.systems.exported_torchserve import TORCHSERVE_EXPORTED, before_torchserve
from benchmarks.systems.former import Former
from benchmarks.systems.mlserver import MLSERVER
from benchmarks.systems.ours import on_transport, ours
from benchmarks.systems.plain_pair import PLAIN_PAIR
from benchmarks.systems.seed import SEED
from benchmarks.systems.torchserve import TORCHSERVE
from benchmarks.systems.triton import TRITON

TRANSPORTS: Final = ("http2", "grpcio")
"""Transports of the services; the first is the default."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """All subjects that can be measured."""

    usual: tuple[Subject, ...]
    when_named: tuple[Subject, ...]

    @property
    def names(self) -> list[str]:
        """The names, the usual ones first."""
        return [subject.name for subject in (*self.usual, *self.when_named)]

    def chosen(self, names: Collection[str] | None) -> list[Subject]:
        """Return the subjects with these names, or the usual ones if ``names`` is ``None``."""
        if names is None:
            return list(self.usual)
        return [subject for subject in (*self.usual, *self.when_named) if subject.name in names]


def catalog(transport: str, former: Former | None) -> Catalog:
    """Return all subjects that can be measured.

    Args:
        transport: transport of our services.
        former: older commit to measure in addition, even if not named.
    """
    usual = (
        *ours(transport),
        *(former.systems() if former else ()),
        TURN,
        ENGINE_ECHO,
        ECHO,
        PLAIN_PAIR,
        TRITON,
        TORCHSERVE,
        TORCHSERVE_EXPORTED,
        before_torchserve(transport),
        MLSERVER,
        SEED,
        INTENT_CLIENT,
        GRPC_STUB,
    )
    others = tuple(system for name in TRANSPORTS if name != transport for system in on_transport(name))
    return Catalog(usual, others if former else (*others, *Former().systems()))
