"""The predictor as a workload: builds its objects from settings."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from typing import Final

from prometheus_client.registry import Collector

from predictor.cache.memory import default_budget, give_memory_back, keep_memory_returnable, memory_limit
from predictor.cache.model_manager import ManagerBounds, ModelManager
from predictor.cache.residency import ResidentModels
from predictor.inference.engine import InferenceEngine
from predictor.inference.traffic_registry import TrafficRegistry
from predictor.metrics.cache import CacheCollector
from predictor.metrics.memory import MemoryLimitCollector
from predictor.metrics.modelmesh import modelmesh_collectors
from predictor.metrics.traffic import TrafficCollector
from predictor.model.intent_model import IntentModel
from predictor.model.loader import WORKSPACE, FileLimits, Loader
from predictor.rpc.servicer import predictor_service
from predictor.settings import PredictorSettings
from serving.call.closing import close_in_order
from serving.domain.model_id import ModelId, parse_model_ids
from serving.domain.query_limits import QueryLimits
from serving.runtime.assembly.access import access_of, behind
from serving.runtime.workload import Workload
from serving.telemetry.dialects import MODELMESH
from serving.volume.freshness.comparison import FileComparison, ProcessComparison
from serving.volume.model_store import ModelStore

_SWITCH_SECONDS: Final = 0.0001


def build(settings: PredictorSettings) -> Workload:
    """Return the predictor that ``settings`` describe. Called on the event loop that serves it."""
    tune_process()
    return workload(settings, ProcessComparison())


def workload(settings: PredictorSettings, comparison: FileComparison) -> Workload:
    """Return the predictor. It closes ``comparison``."""
    engine = build_engine(settings, comparison)
    wanted = wanted_at_start(settings)
    access = access_of(settings)
    served = Workload(
        [predictor_service(engine, access)],
        lambda: engine.preload(wanted),
        functools.partial(close_in_order, engine.close, comparison.close),
        collectors=collectors_of(engine, settings),
    )
    return behind(access, served)


def tune_process() -> None:
    """Set process-wide options for answering queries while models are loaded and evicted."""
    keep_memory_returnable()
    # Loads run Python code just as answers do, and an answer acquires the interpreter many times, so a load must
    # release it soon. At a tenth of a millisecond, answers during loads are ten times as fast as at half a millisecond.
    sys.setswitchinterval(_SWITCH_SECONDS)


def build_engine(settings: PredictorSettings, comparison: FileComparison) -> InferenceEngine:
    """Return the data plane that ``settings`` describe. It does not close ``comparison``."""
    limits = FileLimits(weights=settings.max_weights_bytes, vocabulary=settings.max_vocabulary_bytes)
    residents: ResidentModels[IntentModel] = ResidentModels(
        max_bytes=model_budget(settings),
        max_models=settings.max_models,
        pinned=parse_model_ids(settings.pin),
    )
    manager = ModelManager(
        Loader(ModelStore(settings.model_dir), limits, comparison),
        residents,
        threads=settings.file_threads,
        max_loads=settings.max_loads,
        freshness_seconds=settings.freshness_seconds,
        bounds=ManagerBounds(processor_seconds=settings.max_load_processor_seconds, workspace=WORKSPACE),
        after_evictions=give_memory_back,
    )
    queries = QueryLimits(settings.max_document_bytes, settings.max_batch_size)
    traffic = TrafficRegistry(settings.max_counted_models)
    return InferenceEngine(
        manager, queries, traffic, threads=settings.inference_threads, most_waiting=settings.max_inferences_waiting
    )


def model_budget(settings: PredictorSettings) -> int:
    """Return the bytes for models in this process: with several workers, an equal share of the service's bytes.

    Each worker loads the models that it receives queries for.
    """
    workers = 1 if settings.membership is None else settings.membership.workers
    if settings.model_memory:
        return max(1, settings.model_memory // workers)
    return default_budget(memory_limit() // workers)


def collectors_of(engine: InferenceEngine, settings: PredictorSettings) -> Sequence[Collector]:
    """Return the collectors of the engine's metrics."""
    collectors: list[Collector] = [
        CacheCollector(engine),
        MemoryLimitCollector(),
        TrafficCollector(engine.traffic(), settings.metrics_models),
    ]
    if MODELMESH in settings.names_of_metrics():
        collectors += modelmesh_collectors(engine)
    return collectors


def wanted_at_start(settings: PredictorSettings) -> tuple[ModelId, ...]:
    """Return the models that must be in memory before the service is ready."""
    return (*parse_model_ids(settings.pin), *parse_model_ids(settings.preload))
