"""The frontend as a workload, built from settings."""

from __future__ import annotations

import dataclasses
import functools

from frontend.assembly.engines import backends_of
from frontend.assembly.metrics import collectors_of, query_counts
from frontend.assembly.quotas import quota_collectors, quotas_of
from frontend.grpc.servicer import prediction_service
from frontend.management.service import management
from frontend.open_inference.grpc.servicer import open_inference_service
from frontend.open_inference.readiness import Readiness
from frontend.open_inference.rest.application import rest_application
from frontend.open_inference.service import open_inference_servicer
from frontend.pipelines.backend import PipelineBackend
from frontend.pipelines.counts import StepCounts
from frontend.pipelines.metrics import StepCollector
from frontend.predictions.predictions import RoutedPredictions
from frontend.releases.service import build_releases
from frontend.routing.catalog import Catalog
from frontend.routing.router import Router
from frontend.routing.routes import parse_routes
from frontend.settings import EngineSettings, FrontendSettings
from serving.call.closing import close_in_order
from serving.domain.query_limits import QueryLimits
from serving.runtime.assembly.access import access_of, behind
from serving.runtime.settings import ServerSettings
from serving.runtime.workload import Workload
from serving.volume.freshness.comparison import FileComparison, ProcessComparison
from serving.volume.model_store import ModelStore


def build(settings: FrontendSettings) -> Workload:
    """Return the frontend that ``settings`` describe. Called on the event loop that serves it."""
    access = access_of(settings)
    comparison = ProcessComparison()
    catalog = catalog_of(settings, comparison)
    engines = parse_routes(settings.routes)
    counts = query_counts(settings)
    router = Router(backends_of(engines, settings, catalog, partitions=settings.partitions, counts=counts))
    frontend = workload(settings, catalog, router, comparison)
    counted = dataclasses.replace(frontend, collectors=[*frontend.collectors, *collectors_of(counts, settings)])
    return behind(access, counted)


def catalog_of(settings: ServerSettings, comparison: FileComparison) -> Catalog:
    """Return the catalog of the manifests in the model folder."""
    return Catalog(
        ModelStore(settings.model_dir),
        threads=settings.file_threads,
        freshness_seconds=settings.freshness_seconds,
        comparison=comparison,
    )


def workload(settings: EngineSettings, catalog: Catalog, router: Router, comparison: FileComparison) -> Workload:
    """Return the frontend in front of the engines of ``router``: its own API, and the Open Inference Protocol.

    The workload closes all objects that it is given.
    """
    limits = QueryLimits(settings.max_document_bytes, settings.max_batch_size)
    steps = StepCounts()
    pipelines = PipelineBackend(catalog, steps, settings.trusted())
    router.answer_pipelines_with(pipelines)
    releases = build_releases(
        settings.model_dir,
        catalog,
        router,
        threads=settings.file_threads,
        freshness_seconds=settings.freshness_seconds,
        release_freshness_seconds=settings.release_freshness_seconds,
        comparison=comparison,
        metrics_models=settings.metrics_models,
    )
    quotas = quotas_of(settings)
    predictions = RoutedPredictions(catalog, router, limits, releases.answers, quotas)
    pipelines.ask_through(predictions)
    readiness = Readiness(predictions.wait_until_ready)
    open_inference = open_inference_servicer(
        store=ModelStore(settings.model_dir),
        catalog=catalog,
        router=router,
        predictions=predictions,
        limits=limits,
        is_ready=readiness.is_ready,
    )
    managed = management(settings.model_dir, catalog, router, releases.known, releases.trials)
    return Workload(
        [prediction_service(predictions), open_inference_service(open_inference), managed.service],
        readiness.get_ready,
        functools.partial(close_in_order, managed.close, open_inference.close, predictions.close, comparison.close),
        readiness.end,
        functools.partial(rest_application, open_inference, settings.max_message_bytes),
        collectors=[
            *releases.collectors,
            *quota_collectors(quotas, settings),
            StepCollector(steps, settings.metrics_models),
        ],
    )
