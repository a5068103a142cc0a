"""Choice of the engine that serves the algorithm of a manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from frontend.engines.backend import Backend
from serving.domain.errors import NoBackend
from serving.domain.manifest import Manifest


class Router:
    """Holds the configured backends.

    Args:
        backends: the backend of each algorithm; one backend may serve several algorithms.
    """

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = dict(backends)
        self._pipelines: Backend | None = None

    def answer_pipelines_with(self, backend: Backend) -> None:
        """Have ``backend`` answer for pipelines. It is not one of :attr:`backends`, as it is no engine to wait for."""
        self._pipelines = backend

    def backend_for(self, manifest: Manifest) -> Backend:
        """Return the backend that serves models of the manifest's algorithm.

        Raises:
            NoBackend: no backend is configured for the algorithm.
        """
        backend = self._backends.get(manifest.algorithm) if manifest.pipeline is None else self._pipelines
        if backend is None:
            raise NoBackend("no engine is configured for the model's Algorithm; add a route for it to the frontend")
        return backend

    @property
    def backends(self) -> tuple[Backend, ...]:
        """Backend of every engine, once."""
        return tuple(dict.fromkeys(self._backends.values()))

    async def close(self) -> None:
        """Close every backend."""
        pipelines = () if self._pipelines is None else (self._pipelines,)
        await asyncio.gather(*(backend.close() for backend in (*pipelines, *self.backends)))
