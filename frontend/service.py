"""The frontend as a workload: builds its objects from settings."""

from __future__ import annotations

from frontend.backends.backend import Backend
from frontend.backends.coalescing import CoalescingBackend
from frontend.backends.predictor import PredictorBackend
from frontend.catalog import Catalog
from frontend.predictions import RoutedPredictions
from frontend.router import Router
from frontend.routes import Engine, parse_routes
from frontend.servicer import prediction_service
from frontend.settings import FrontendSettings
from serving.model_store import ModelStore
from serving.query_limits import QueryLimits
from serving.transport.lifecycle import Workload


def build(settings: FrontendSettings) -> Workload:
    """Return the frontend that ``settings`` describe. Called on the event loop that serves it."""
    return workload(settings, _router(settings))


def workload(settings: FrontendSettings, router: Router) -> Workload:
    """Return the frontend before the engines of ``router``."""
    catalog = Catalog(
        ModelStore(settings.model_dir), threads=settings.file_threads, freshness_seconds=settings.freshness_seconds
    )
    limits = QueryLimits(settings.max_document_bytes, settings.max_batch_size)
    predictions = RoutedPredictions(catalog, router, limits)
    return Workload([prediction_service(predictions)], predictions.wait_until_ready, predictions.close)


def _router(settings: FrontendSettings) -> Router:
    """Return the router; algorithms of one engine share its backend."""
    backends: dict[Engine, Backend] = {}
    table: dict[str, Backend] = {}
    for algorithm, engine in parse_routes(settings.routes).items():
        if engine not in backends:
            backends[engine] = CoalescingBackend(
                PredictorBackend(engine.address), calls=settings.calls_in_flight, partitions=settings.partitions
            )
        table[algorithm] = backends[engine]
    return Router(table)
