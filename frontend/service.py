"""The frontend as a workload: builds its objects from settings."""

from __future__ import annotations

import functools

from frontend.catalog import Catalog
from frontend.engines import backends_of
from frontend.open_inference.readiness import Readiness
from frontend.open_inference.rest.application import rest_application
from frontend.open_inference.rest.endpoint import Limits
from frontend.open_inference.service import open_inference_servicer
from frontend.open_inference.servicer import open_inference_service
from frontend.predictions import RoutedPredictions
from frontend.router import Router
from frontend.routes import parse_routes
from frontend.servicer import prediction_service
from frontend.settings import FrontendSettings
from serving.model_store import ModelStore
from serving.query_limits import QueryLimits
from serving.settings import ServerSettings
from serving.transport.lifecycle import Workload


def build(settings: FrontendSettings) -> Workload:
    """Return the frontend that ``settings`` describe. Called on the event loop that serves it."""
    catalog = catalog_of(settings)
    engines = parse_routes(settings.routes)
    router = Router(backends_of(engines, settings, catalog, partitions=settings.partitions))
    return workload(settings, catalog, router)


def catalog_of(settings: ServerSettings) -> Catalog:
    """Return the manifests of the model folder."""
    store = ModelStore(settings.model_dir)
    return Catalog(store, threads=settings.file_threads, freshness_seconds=settings.freshness_seconds)


def workload(settings: ServerSettings, catalog: Catalog, router: Router) -> Workload:
    """Return the frontend before the engines of ``router``: its own API, and the Open Inference Protocol."""
    limits = QueryLimits(settings.max_document_bytes, settings.max_batch_size)
    predictions = RoutedPredictions(catalog, router, limits)
    readiness = Readiness(predictions.wait_until_ready)
    open_inference = open_inference_servicer(
        store=ModelStore(settings.model_dir),
        catalog=catalog,
        router=router,
        predictions=predictions,
        limits=limits,
        is_ready=readiness.is_ready,
    )
    rest_limits = Limits(settings.max_message_bytes, settings.default_deadline_seconds)

    async def close() -> None:
        open_inference.close()
        await predictions.close()

    return Workload(
        [prediction_service(predictions), open_inference_service(open_inference)],
        readiness.get_ready,
        close,
        readiness.end,
        functools.partial(rest_application, open_inference, rest_limits),
    )
