"""Builders for tests of the services: models of made-up files, calls, addresses, real hosts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from frontend.engines.backend import Backend
from frontend.grpc.servicer import prediction_service
from frontend.predictions.predictions import RoutedPredictions
from frontend.routing.catalog import Catalog
from frontend.routing.router import Router
from predictor.settings import PredictorSettings
from serving.call.call import Call
from serving.call.deadline import Deadline
from serving.domain.errors import InvalidManifest
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query, ScoredLabel
from serving.domain.query_limits import QueryLimits
from serving.runtime.lifecycle import Host
from serving.runtime.settings import ServerSettings
from serving.transport.admission import Admission
from serving.transport.guards import Guards
from serving.transport.hosts.grpcio import GrpcioHost
from serving.transport.hosts.http2 import Http2Host
from serving.transport.service import Service
from serving.volume.file_identity import FileIdentity
from serving.volume.freshness.comparison import ThreadComparison
from serving.volume.model_store import MODEL_FILES, Fingerprint, ModelStore
from serving.volume.publishing import seal

PATIENCE: Final = 30.0
"""Seconds after which a waiting test fails; a test of a correct product never comes near this bound."""

PREDICTOR: Final = "prediction.Predictor"

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


def fingerprint_of(mark: int, *, size: int = 1, missing: Sequence[str] = ()) -> Fingerprint:
    """Return the identity of made-up model files; another ``mark`` means other files."""
    return Fingerprint(
        tuple(None if name in missing else FileIdentity(1, mark, size, mark, mark) for name in MODEL_FILES)
    )


def a_call(seconds: float = PATIENCE, request_id: str = "request-1") -> Call:
    """Return a call that has ``seconds`` left."""
    return Call(request_id, Deadline.after(seconds))


def a_prediction(query: Query, label: str = "") -> Prediction:
    """Return an answer to ``query``; its label is ``label``, or the document."""
    best = tuple(ScoredLabel(f"label-{number}", 0.5 ** (number + 1)) for number in range(query.k))
    return Prediction(label or query.document, 0.5, best, query.model_id, "1.0")


async def happened(event: threading.Event) -> None:
    """Wait until a thread has set ``event``."""
    assert await asyncio.to_thread(event.wait, PATIENCE)


async def a_turn(turns: int = 1) -> None:
    """Let every runnable task run, ``turns`` times."""
    for _ in range(turns):
        await asyncio.sleep(0)


# Below the system's ephemeral ports, so that a connection made in the meantime does not take a port away.
_PORTS = range(10_000, 20_000)


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    while True:
        port = secrets.choice(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


_REFUSING: list[socket.socket] = []
"""Sockets that stay bound and never listen while the tests run."""


def refusing_address() -> str:
    """Return an address of the loopback interface that refuses connections and that no other process can take."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    _REFUSING.append(holder)
    return f"127.0.0.1:{holder.getsockname()[1]}"


def publish(root: Path, model_id: str, *, files: Mapping[str, bytes] | None = None, **keys: Any) -> Path:
    """Put a model folder with a manifest of ``keys`` and ``files`` below ``root``; replace each file atomically."""
    folder = root / model_id
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"Algorithm": "intent-classification", "classes": {"0": "no", "1": "yes"}} | keys
    contents = {"model.pth": b"weights", "vocab.pth": b"tokens"} if files is None else files
    for name, content in {**contents, "manifest.json": json.dumps(manifest).encode()}.items():
        staged = folder / f".{name}"
        staged.write_bytes(content)
        staged.replace(folder / name)
    return folder


def unseal(folder: Path) -> Path:
    """Remove the sums from the manifest of a published model, as a foreign program writes it; return the folder."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "Files"}))
    return folder


def reseal(folder: Path) -> Path:
    """Write the sums of changed files into a model's manifest, as its publisher does; return the folder."""
    # An invalid manifest holds no checksums.
    with contextlib.suppress(InvalidManifest):
        Manifest.parse((folder / "manifest.json").read_bytes())
        seal(unseal(folder))
    return folder


def server_settings(model_dir: Path, **settings: Any) -> PredictorSettings:
    """Return settings of a server on a free port."""
    return PredictorSettings(**{"model_dir": model_dir, "host": "127.0.0.1", "port": 0, **settings})


def host_of(settings: ServerSettings, services: Sequence[Service], guards: Guards | None = None) -> Host:
    """Return a host of services; without ``guards``, only the settings' bound on calls applies."""
    guards = guards or Guards(admission=Admission(settings.max_in_flight))
    kind = GrpcioHost if settings.transport == "grpcio" else Http2Host
    return kind(settings, services, guards)


@asynccontextmanager
async def hosted(model_dir: Path, *services: Service, **settings: Any) -> AsyncIterator[str]:
    """Host services on a free port of this process; yield their address."""
    host = host_of(server_settings(model_dir, **settings), services)
    address = await host.start()
    await host.set_serving(True)
    try:
        yield address
    finally:
        await host.stop(0)


@asynccontextmanager
async def hosted_frontend(model_dir: Path, backend: Backend, **settings: Any) -> AsyncIterator[str]:
    """Host a real frontend before ``backend``; yield its address."""
    catalog = Catalog(ModelStore(model_dir), threads=2, freshness_seconds=0.0, comparison=ThreadComparison())
    limits = QueryLimits(max_document_bytes=4096, max_batch_size=8)
    predictions = RoutedPredictions(catalog, Router({"intent-classification": backend}), limits)
    try:
        async with hosted(model_dir, prediction_service(predictions), **settings) as address:
            yield address
    finally:
        await predictions.close()


def channel_to(address: str) -> AbstractAsyncContextManager[grpc.aio.Channel]:
    """Return a channel that shares no connection, and that finds a late server within a fraction of a second."""
    options = (
        ("grpc.max_reconnect_backoff_ms", 200),
        ("grpc.use_local_subchannel_pool", 1),
        # The probe would grow the windows with the delays of a busy machine, and then nothing holds a stream back.
        ("grpc.http2.bdp_probe", 0),
    )
    return grpc.aio.insecure_channel(address, options=options)


async def health_of(channel: grpc.aio.Channel, name: str = "") -> int:
    """Return the health status of the service ``name``."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE, wait_for_ready=True)
    return int(answer.status)


async def health_becomes(channel: grpc.aio.Channel, wanted: int, name: str = "") -> None:
    """Wait until the health status of the service ``name`` is ``wanted``."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE, wait_for_ready=True)
    try:
        async for update in watch:
            if update.status == wanted:
                return
    finally:
        watch.cancel()
    raise AssertionError("the health check ended before")


def model_id(text: str) -> ModelId:
    """Return an id that needs no check."""
    return ModelId(text)
