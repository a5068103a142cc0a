"""Construction of the engine backends from the configured routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from frontend.batching.coalesced import coalesced
from frontend.batching.counts import QueryCounts
from frontend.engines.backend import Backend, GroupingBackend, Manifests
from frontend.engines.open_inference.backend import OpenInferenceBackend
from frontend.engines.partitions import partitions_before
from frontend.engines.predictor.backend import PredictorBackend
from frontend.engines.predictor.tls import EngineTls
from frontend.engines.torchserve.backend import TorchServeBackend
from frontend.engines.torchserve.options import TorchServeOptions
from frontend.routing.routes import OPEN_INFERENCE, PREDICTOR, TORCHSERVE, Engine
from frontend.settings import EngineSettings
from serving.access.own_credential import OwnCredential


def backends_of(
    engines: Mapping[str, Engine],
    settings: EngineSettings,
    manifests: Manifests,
    *,
    partitions: int,
    counts: QueryCounts | None = None,
) -> dict[str, Backend]:
    """Return the backend of each algorithm; algorithms of one engine share it.

    Args:
        engines: engine of each algorithm.
        settings: settings for calls to engines.
        manifests: manifests for engines that have none.
        partitions: number of partitions of models; 0: a number that fits the engine.
        counts: counters of queries on their way to the engines.
    """

    def backend_of(engine: Engine) -> Backend:
        kind = _BACKENDS[engine.kind]
        backend = kind(engine, settings, manifests, partitions or partitions_before(engine.address))
        return coalesced(
            backend,
            calls=settings.calls_in_flight,
            group_of=backend.group_of,
            counts=counts,
            submit_batch=backend.submit_batch,
        )

    backends = {engine: backend_of(engine) for engine in set(engines.values())}
    return {algorithm: backends[engine] for algorithm, engine in engines.items()}


def _predictor(engine: Engine, settings: EngineSettings, manifests: Manifests, partitions: int) -> GroupingBackend:
    del manifests
    files = settings.predictor_tls()
    tls = None if files is None else EngineTls(files, settings.predictor_tls_server_name)
    file = settings.predictor_credential_file
    credential = None if file is None else OwnCredential(file)
    return PredictorBackend(engine.address, partitions=partitions, tls=tls, credential=credential)


def _torchserve(engine: Engine, settings: EngineSettings, manifests: Manifests, partitions: int) -> GroupingBackend:
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
    return TorchServeBackend(engine.address, engine.management, manifests, options)


def _open_inference(engine: Engine, settings: EngineSettings, manifests: Manifests, partitions: int) -> GroupingBackend:
    del settings
    return OpenInferenceBackend(engine.address, manifests=manifests, partitions=partitions)


_BACKENDS: Final[Mapping[str, Callable[[Engine, EngineSettings, Manifests, int], GroupingBackend]]] = {
    PREDICTOR: _predictor,
    TORCHSERVE: _torchserve,
    OPEN_INFERENCE: _open_inference,
}
