"""The order that a worker gets from its supervisor: what to serve."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from serving.runtime.settings import ServerSettings
from serving.workers.board import Board
from serving.workers.membership import Membership

MODELS_EACH: Final = 4
"""Factor: how many times as many of the busiest models a worker exports as the service does."""
_MOST_MODELS: Final = 1000
"""Bound of the setting."""


@dataclass(frozen=True, slots=True)
class Order:
    """One worker's part. It goes from one process to the other as JSON."""

    program: str
    """Name of the program."""
    build: str
    """Place of the function that makes the workload of settings: ``module:function``."""
    settings_class: str
    """Class of the settings: ``module:class``."""
    settings: dict[str, Any]
    """Their values."""
    workers: int
    """Number of workers."""
    index: int
    """Place of this one among them, from 0."""
    generation: int
    """Number of the processes that have ended in this place."""
    board: int
    """Descriptor of the memory of :class:`~serving.workers.board.Board`."""
    memory: int
    """Descriptor of the memory that the program's workers share."""
    inboxes: list[int]
    """Descriptors of the sockets over which workers give each other connections, by the place of who gets them."""

    def fields(self) -> dict[str, Any]:
        """Return all of it, as :meth:`of` takes it."""
        return asdict(self)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Return the order that a message has brought."""
        return cls(**{name: fields[name] for name in cls.__slots__})

    def worker_settings(self) -> ServerSettings:
        """Return the settings to be served by. Called in the worker."""
        module, _, name = self.settings_class.partition(":")
        kind: type[ServerSettings] = getattr(importlib.import_module(module), name)
        return kind(**self.settings)

    def membership(self) -> Membership:
        """Return what the worker knows of being one. Called in the worker."""
        return Membership(self.index, self.generation, Board(self.board, self.workers), self.memory, self.inboxes)

    def descriptors(self) -> tuple[int, ...]:
        """Return every descriptor that the worker inherits."""
        return (self.board, self.memory, *self.inboxes)


def settings_of_each(settings: ServerSettings, workers: int, ports: dict[str, int]) -> dict[str, Any]:
    """Return the values of the settings of each of so many workers, for :class:`Order`.

    What is bounded for the whole service is divided among them; of the busiest models each exports more, so that the
    busiest of all are among them.

    Args:
        settings: of the service.
        workers: number of workers.
        ports: that were taken, by the name of the setting.
    """
    shares = {
        "traces_per_second": settings.traces_per_second / workers,
        "metrics_models": min(_MOST_MODELS, settings.metrics_models * MODELS_EACH),
    }
    return settings.model_copy(update=shares | ports).model_dump(mode="json")
