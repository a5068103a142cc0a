"""The predictor as a service: builds its objects from settings, and runs them."""

from __future__ import annotations

import sys
from typing import Final

from predictor.engine import InferenceEngine
from predictor.intent_model import IntentModel
from predictor.loader import FileLimits, Loader
from predictor.memory import default_budget, give_memory_back, keep_memory_returnable, memory_limit
from predictor.model_manager import ModelManager
from predictor.residency import ResidentModels
from predictor.servicer import predictor_service
from predictor.settings import PredictorSettings
from serving.model_id import ModelId, parse_model_ids
from serving.model_store import ModelStore
from serving.query_limits import QueryLimits
from serving.transport.grpcio import GrpcioHost
from serving.transport.lifecycle import serve

_SWITCH_SECONDS: Final = 0.0001


async def run(settings: PredictorSettings) -> None:
    """Serve until a signal."""
    keep_memory_returnable()
    # Loads are Python's work as much as answers are, and an answer asks for the interpreter many times: a load must let
    # go of it soon. At a tenth of a millisecond answers during loads are ten times as fast as at a half.
    sys.setswitchinterval(_SWITCH_SECONDS)
    engine = build_engine(settings)
    host = GrpcioHost(settings, [predictor_service(engine)])
    await serve(host, settings, get_ready=lambda: engine.preload(_wanted_at_start(settings)), close=engine.close)


def build_engine(settings: PredictorSettings) -> InferenceEngine:
    """Return the data plane that ``settings`` describe."""
    limits = FileLimits(weights=settings.max_weights_bytes, vocabulary=settings.max_vocabulary_bytes)
    residents: ResidentModels[IntentModel] = ResidentModels(
        max_bytes=settings.model_memory or default_budget(memory_limit()),
        max_models=settings.max_models,
        pinned=parse_model_ids(settings.pin),
    )
    manager = ModelManager(
        Loader(ModelStore(settings.model_dir), limits),
        residents,
        threads=settings.file_threads,
        max_loads=settings.max_loads,
        freshness_seconds=settings.freshness_seconds,
        after_evictions=give_memory_back,
    )
    queries = QueryLimits(settings.max_document_bytes, settings.max_batch_size)
    return InferenceEngine(manager, queries, threads=settings.inference_threads)


def _wanted_at_start(settings: PredictorSettings) -> tuple[ModelId, ...]:
    return (*parse_model_ids(settings.pin), *parse_model_ids(settings.preload))
