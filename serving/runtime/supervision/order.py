"""The order that a worker gets from its supervisor: what to serve."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from serving.runtime.settings import ServerSettings
from serving.workers.board import Board
from serving.workers.membership import Membership

MODELS_EACH: Final = 4
"""Ratio of the number of busiest models that a worker exports to the number that the service exports."""
_MOST_MODELS: Final = 1000
"""Upper bound of the setting ``metrics_models``."""


@dataclass(frozen=True, slots=True)
class Order:
    """Order for one worker, sent from the supervisor to the worker as JSON."""

    program: str
    """Name of the program."""
    build: str
    """Function that builds the workload from settings, as ``module:function``."""
    settings_class: str
    """Class of the settings, as ``module:class``."""
    settings: dict[str, Any]
    """Values of the settings."""
    workers: int
    """Number of workers."""
    index: int
    """Place of this worker among all workers, from 0."""
    generation: int
    """Number of processes that have ended in this place."""
    board: int
    """Descriptor of the memory of :class:`~serving.workers.board.Board`."""
    memory: int
    """Descriptor of the memory that the program's workers share."""
    inboxes: list[int]
    """Descriptors of the sockets over which workers give each other connections, by the place of the receiver."""

    def fields(self) -> dict[str, Any]:
        """Return all fields, as :meth:`of` takes them."""
        return asdict(self)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return the order in a received message."""
        return cls(**{name: fields[name] for name in cls.__slots__})

    def worker_settings(self) -> ServerSettings:
        """Return the worker's settings. Called in the worker."""
        module, _, name = self.settings_class.partition(":")
        kind: type[ServerSettings] = getattr(importlib.import_module(module), name)
        return kind(**self.settings)

    def membership(self) -> Membership:
        """Return the worker's membership. Called in the worker."""
        return Membership(self.index, self.generation, Board(self.board, self.workers), self.memory, self.inboxes)

    def descriptors(self) -> tuple[int, ...]:
        """Return every descriptor that the worker inherits."""
        return (self.board, self.memory, *self.inboxes)


def settings_of_each(settings: ServerSettings, workers: int, ports: dict[str, int]) -> dict[str, Any]:
    """Return the values of each worker's settings, for :class:`Order`.

    A bound on the whole service is divided among the workers. Each worker exports more of its busiest models than the
    service does, so that the busiest models of the service are among them.

    Args:
        settings: settings of the service.
        workers: number of workers.
        ports: reserved ports, by the name of the setting.
    """
    shares = {
        "traces_per_second": settings.traces_per_second / workers,
        "metrics_models": min(_MOST_MODELS, settings.metrics_models * MODELS_EACH),
    }
    return settings.model_copy(update=shares | ports).model_dump(mode="json")
