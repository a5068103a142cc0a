"""The frontend as a workload: builds its objects from settings."""

from __future__ import annotations

from collections.abc import Mapping

from frontend.backends.backend import Backend
from frontend.backends.coalescing import CoalescingBackend
from frontend.backends.partitions import partitions_before
from frontend.backends.predictor import PredictorBackend
from frontend.catalog import Catalog
from frontend.predictions import RoutedPredictions
from frontend.router import Router
from frontend.routes import Engine, parse_routes
from frontend.servicer import prediction_service
from frontend.settings import FrontendSettings
from serving.model_store import ModelStore
from serving.query_limits import QueryLimits
from serving.settings import ServerSettings
from serving.transport.lifecycle import Workload


def build(settings: FrontendSettings) -> Workload:
    """Return the frontend that ``settings`` describe. Called on the event loop that serves it."""
    engines = parse_routes(settings.routes)
    return workload(
        settings,
        Router(backends_of(engines, calls_in_flight=settings.calls_in_flight, partitions=settings.partitions)),
    )


def workload(settings: ServerSettings, router: Router) -> Workload:
    """Return the frontend before the engines of ``router``."""
    catalog = Catalog(
        ModelStore(settings.model_dir), threads=settings.file_threads, freshness_seconds=settings.freshness_seconds
    )
    limits = QueryLimits(settings.max_document_bytes, settings.max_batch_size)
    predictions = RoutedPredictions(catalog, router, limits)
    return Workload([prediction_service(predictions)], predictions.wait_until_ready, predictions.close)


def backends_of(engines: Mapping[str, Engine], *, calls_in_flight: int, partitions: int) -> dict[str, Backend]:
    """Return the backend of each algorithm; algorithms of one engine share it. 0 partitions: as many as fit it."""
    backends = {
        engine: _backend_of(engine, calls_in_flight, partitions or partitions_before(engine.address))
        for engine in set(engines.values())
    }
    return {algorithm: backends[engine] for algorithm, engine in engines.items()}


def _backend_of(engine: Engine, calls_in_flight: int, partitions: int) -> Backend:
    backend = PredictorBackend(engine.address, partitions=partitions)
    return CoalescingBackend(backend, calls=calls_in_flight, group_of=backend.group_of)
