"""Construction of the protocol's servicer on top of the frontend's data plane."""

from __future__ import annotations

from collections.abc import Callable

from frontend.open_inference.grpc.servicer import OpenInferenceServicer
from frontend.open_inference.inference import Inferences
from frontend.open_inference.models import NamedModels
from frontend.open_inference.repository import ModelRepository
from frontend.open_inference.statistics import InferenceStatistics
from frontend.predictions.predictions import RoutedPredictions
from frontend.routing.catalog import Catalog
from frontend.routing.router import Router
from serving.domain.query_limits import QueryLimits
from serving.volume.model_store import ModelStore


def open_inference_servicer(
    *,
    store: ModelStore,
    catalog: Catalog,
    router: Router,
    predictions: RoutedPredictions,
    limits: QueryLimits,
    is_ready: Callable[[], bool],
) -> OpenInferenceServicer:
    """Return the servicer, to be closed by the caller.

    Args:
        store: lists the models.
        catalog: manifests of the models.
        router: selects their engines.
        predictions: answers queries, through the same catalog and router.
        limits: limits of ``predictions`` for a query and a batch.
        is_ready: whether the frontend can answer.
    """
    models = NamedModels(catalog, router, predictions.route)
    statistics = InferenceStatistics()
    return OpenInferenceServicer(
        Inferences(models, predictions, statistics, limits.max_batch_size),
        models,
        ModelRepository(store.names, store.versions, models, predictions),
        statistics,
        max_documents=limits.max_batch_size,
        is_ready=is_ready,
    )
