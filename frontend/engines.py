"""From routes to the backends that ask the engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from frontend.backends.backend import Backend, Manifests
from frontend.backends.coalescing import CoalescingBackend
from frontend.backends.open_inference.backend import OpenInferenceBackend
from frontend.backends.partitions import partitions_before
from frontend.backends.predictor import PredictorBackend
from frontend.backends.torchserve.backend import TorchServeBackend
from frontend.backends.torchserve.options import TorchServeOptions
from frontend.routes import OPEN_INFERENCE, PREDICTOR, TORCHSERVE, Engine
from frontend.settings import EngineSettings


def backends_of(
    engines: Mapping[str, Engine], settings: EngineSettings, manifests: Manifests, *, partitions: int
) -> dict[str, Backend]:
    """Return the backend of each algorithm; algorithms of one engine share it. 0 partitions: as many as fit it."""
    backends = {
        engine: _BACKENDS[engine.kind](engine, settings, manifests, partitions or partitions_before(engine.address))
        for engine in set(engines.values())
    }
    return {algorithm: backends[engine] for algorithm, engine in engines.items()}


def _predictor(engine: Engine, settings: EngineSettings, manifests: Manifests, partitions: int) -> Backend:
    del manifests
    backend = PredictorBackend(engine.address, partitions=partitions)
    return CoalescingBackend(backend, calls=settings.calls_in_flight, group_of=backend.group_of)


def _torchserve(engine: Engine, settings: EngineSettings, manifests: Manifests, partitions: int) -> Backend:
    del partitions
    options = TorchServeOptions(
        most_models=settings.torchserve_models,
        workers=settings.torchserve_workers,
        batch_size=settings.torchserve_batch_size,
        batch_delay_milliseconds=settings.torchserve_batch_delay_milliseconds,
        registration_seconds=settings.torchserve_registration_seconds,
        response_seconds=settings.torchserve_response_seconds,
        key_file=settings.torchserve_key_file,
    )
    backend = TorchServeBackend(engine.address, engine.management, manifests, options)
    return CoalescingBackend(backend, calls=settings.calls_in_flight, group_of=backend.group_of)


def _open_inference(engine: Engine, settings: EngineSettings, manifests: Manifests, partitions: int) -> Backend:
    backend = OpenInferenceBackend(engine.address, manifests=manifests, partitions=partitions)
    return CoalescingBackend(backend, calls=settings.calls_in_flight, group_of=backend.group_of)


_BACKENDS: Final[Mapping[str, Callable[[Engine, EngineSettings, Manifests, int], Backend]]] = {
    PREDICTOR: _predictor,
    TORCHSERVE: _torchserve,
    OPEN_INFERENCE: _open_inference,
}
