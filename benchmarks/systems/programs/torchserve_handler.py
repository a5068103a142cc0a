"""TorchServe's handler: the module has only one class, as TorchServe requires."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from peers.inside import shared_model


class Handler:
    """Handler for the batches of requests that TorchServe gathers."""

    def initialize(self, _context: Any) -> None:
        """Load the model."""
        self._model = shared_model.SharedModel()

    def handle(self, data: Sequence[Mapping[str, bytes | bytearray]], _context: Any) -> list[str]:
        """Return one label per request."""
        return self._model.labels([bytes(request["data"]).decode() for request in data])
