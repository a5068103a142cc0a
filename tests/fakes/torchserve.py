"""A fake TorchServe: its two services over real sockets, with the observed answers of TorchServe 0.12.

A real server takes seconds to start, and cannot be made to lose a model between two calls or to hold an answer back.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
from grpc import StatusCode

from frontend.engines.torchserve.backend import TorchServeBackend
from frontend.engines.torchserve.options import TorchServeOptions
from serving.stubs import torchserve_inference_pb2 as inference
from serving.stubs import torchserve_inference_pb2_grpc as inference_grpc
from serving.stubs import torchserve_management_pb2 as management
from serving.stubs import torchserve_management_pb2_grpc as management_grpc
from tests.fakes.manifests import FakeManifests

Inputs = Mapping[str, bytes]

_PACKAGE = "org.pytorch.serve"
_FAILED = f"{_PACKAGE}.http.InternalServerException"
_NOT_FOUND = f"{_PACKAGE}.archive.model.ModelNotFoundException"


class HandlerError(Exception):
    """The failure of a handler; by default, callers see it as they see any exception of a handler."""

    def __init__(self, text: str = "Prediction failed", code: StatusCode = StatusCode.UNAVAILABLE) -> None:
        super().__init__(text)
        self.code = code


def plain(answer: str | bytes) -> Callable[[Inputs], Awaitable[bytes]]:
    """Return a handler of one document; its answer is ``answer`` as bytes, or the text ``answer`` and the document."""

    async def handle(inputs: Inputs) -> bytes:
        if "data" not in inputs:
            raise HandlerError
        return answer if isinstance(answer, bytes) else f"{answer} {inputs['data'].decode()}".encode()

    return handle


def documents(label: str) -> Callable[[Inputs], Awaitable[bytes]]:
    """Return a handler as ``intentctl export`` first wrote it, whose label is ``label`` and the document.

    It knows nothing of thresholds and explanations.
    """

    async def handle(inputs: Inputs) -> bytes:
        if not inputs:
            return json.dumps({"documents": True, "labels": 2}).encode()
        results = [
            {"result": f"{label} {one['document']}", "score": 0.5, "best": [["a", 0.5], ["b", 0.25]][: one["k"]]}
            for one in json.loads(inputs["documents"])
        ]
        return json.dumps({"results": results}).encode()

    return handle


@dataclass
class Archive:
    """A file of the model store."""

    handle: Callable[[Inputs], Awaitable[bytes]]
    version: str = "1.0"
    readable: bool = True
    starts: bool = True
    up: asyncio.Event | None = None
    """Event that the workers wait for when they start."""
    waited_for: asyncio.Event = field(default_factory=asyncio.Event)
    """Event that is set once a request waits for the workers."""


@dataclass
class Model:
    """A registered model."""

    name: str
    url: str
    archive: Archive
    request: management.RegisterModelRequest
    workers: list[dict[str, Any]] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def described(self) -> dict[str, Any]:
        queue = {"remainingCapacity": 100, "pendingRequests": 0}
        version = self.archive.version
        known = {"modelName": self.name, "modelVersion": version, "modelUrl": self.url, "workers": self.workers}
        return {**known, "jobQueueStatus": queue}


class FakeTorchServe:
    """A server with archives by file name and models by name and version; it keeps the requests it receives."""

    def __init__(self, **archives: Archive) -> None:
        self.store = {f"model-{name}.mar": archive for name, archive in archives.items()}
        self.models: dict[tuple[str, str], Model] = {}
        self.asked: Counter[str] = Counter()
        self.predictions: list[inference.PredictionsRequest] = []
        self.keys: dict[str, str] | None = None
        self.full = False
        self.model_api = True
        self.before_answer: Callable[[inference.PredictionsRequest], Awaitable[None]] | None = None
        """Called between a handler's answer and its arrival."""
        self.inference_port = self.management_port = 0
        self._starts = 0
        self._number = 9000
        self._server: grpc.aio.Server | None = None

    @property
    def targets(self) -> tuple[str, str]:
        return f"127.0.0.1:{self.inference_port}", f"127.0.0.1:{self.management_port}"

    @property
    def registered(self) -> dict[str, str]:
        """The archive of each registered name."""
        return {name: model.url for (name, _), model in self.models.items()}

    async def start(self) -> None:
        """Listen at the former ports, with nothing registered."""
        self._number = 9000
        self.models = {}
        server = self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        inference_grpc.add_InferenceAPIsServiceServicer_to_server(_Inference(self), server)
        management_grpc.add_ManagementAPIsServiceServicer_to_server(_Management(self), server)
        # Both APIs are on both ports: the keys check which of them a call is for.
        self.inference_port = server.add_insecure_port(f"127.0.0.1:{self.inference_port}")
        self.management_port = server.add_insecure_port(f"127.0.0.1:{self.management_port}")
        await server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(0)

    def put(self, name: str, url: str, workers: int = 1) -> Model:
        """Register a model, as another client would."""
        archive = self.store[url]
        model = Model(name, url, archive, management.RegisterModelRequest(model_name=name, url=url))
        self.models[name, archive.version] = model
        self.add_workers(model, workers)
        return model

    def remove(self, name: str, version: str = "1.0") -> None:
        """Unregister a model: its queries in flight are never answered."""
        self.models.pop((name, version)).gone.set()

    def add_workers(self, model: Model, count: int) -> None:
        self._starts += 1
        for _ in range(count - len(model.workers)):
            started = f"2026-11-21T13:04:49.{self._starts:03}Z"
            model.workers.append({"id": str(self._number), "startTime": started, "status": "UNLOADING", "pid": 1})
            self._number += 1

    async def wait_until_up(self, model: Model) -> None:
        model.archive.waited_for.set()
        if model.archive.up is not None:
            await model.archive.up.wait()
        for worker in model.workers:
            worker["status"] = "READY"

    def find(self, name: str, version: str) -> list[Model]:
        of_name = [model for (known, _), model in self.models.items() if known == name]
        if version == "all":
            return of_name
        return [model for model in of_name if version in ("", model.archive.version)][:1]

    async def check_key(self, context: Any, api: str) -> None:
        if self.keys is not None and ("authorization", f"Bearer {self.keys[api]}") not in context.invocation_metadata():
            text = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
            await context.abort(StatusCode.PERMISSION_DENIED, text)


async def _unknown(context: Any, code: StatusCode, name: str) -> NoReturn:
    await context.abort(code, f"Model not found: {name}\n{_NOT_FOUND}")
    raise AssertionError


class _Inference(inference_grpc.InferenceAPIsServiceServicer):
    def __init__(self, fake: FakeTorchServe) -> None:
        self._fake = fake

    async def Ping(self, request: Any, context: Any) -> inference.TorchServeHealthResponse:  # noqa: N802
        await self._fake.check_key(context, "inference")
        return inference.TorchServeHealthResponse(health='{"status": "Healthy"}')

    async def Predictions(  # noqa: N802
        self, request: inference.PredictionsRequest, context: Any
    ) -> inference.PredictionResponse:
        fake = self._fake
        await fake.check_key(context, "inference")
        fake.asked["Predictions"] += 1
        fake.predictions.append(request)
        found = fake.find(request.model_name, request.model_version)
        if not found:
            await _unknown(context, StatusCode.INTERNAL, request.model_name)
        model = found[0]
        if fake.full or not model.workers:
            text = f'Model "{model.name}" Version 1.0" has no worker to serve inference request. Please use scale'
            await context.abort(StatusCode.INTERNAL, f"{text} workers API\nInternalServerException.()")
        await fake.wait_until_up(model)
        answer = asyncio.ensure_future(_handled(model, request.input, context))
        gone = asyncio.ensure_future(model.gone.wait())
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                await asyncio.Event().wait()
            content = answer.result()
        finally:
            answer.cancel()
            gone.cancel()
        if fake.before_answer is not None:
            await fake.before_answer(request)
        return inference.PredictionResponse(prediction=content)


async def _handled(model: Model, inputs: Inputs, context: Any) -> bytes:
    try:
        return await model.archive.handle(inputs)
    except HandlerError as error:
        await context.abort(error.code, f"{error}\n{_FAILED}")
        raise AssertionError from error


class _Management(management_grpc.ManagementAPIsServiceServicer):
    def __init__(self, fake: FakeTorchServe) -> None:
        self._fake = fake

    async def DescribeModel(  # noqa: N802
        self, request: management.DescribeModelRequest, context: Any
    ) -> management.ManagementResponse:
        fake = self._fake
        await fake.check_key(context, "management")
        fake.asked["DescribeModel"] += 1
        found = fake.find(request.model_name, request.model_version)
        if not found:
            code = StatusCode.INTERNAL if request.customized else StatusCode.NOT_FOUND
            await _unknown(context, code, request.model_name)
        described = [model.described() for model in found]
        if request.customized:
            if fake.full or not found[0].workers:
                await context.abort(StatusCode.INTERNAL, f"InternalServerException.()\n{_FAILED}")
            await fake.wait_until_up(found[0])
            answer = await _handled(found[0], {}, context)
            described = [{**found[0].described(), "customizedMetadata": _metadata(answer)}]
        return management.ManagementResponse(msg=json.dumps(described, indent=2))

    async def RegisterModel(  # noqa: N802
        self, request: management.RegisterModelRequest, context: Any
    ) -> management.ManagementResponse:
        fake = self._fake
        await fake.check_key(context, "management")
        fake.asked["RegisterModel"] += 1
        if not fake.model_api:
            text = f"Model API disabled\n{_PACKAGE}.archive.model.ModelException"
            await context.abort(StatusCode.PERMISSION_DENIED, text)
        archive = fake.store.get(request.url)
        if archive is None:
            await context.abort(StatusCode.NOT_FOUND, f"Model not found at: {request.url}\n{_NOT_FOUND}")
            raise AssertionError
        if not archive.readable:
            await context.abort(StatusCode.INTERNAL, f"Failed to save model: {request.url}\n{_FAILED}")
        if (request.model_name, archive.version) in fake.models:
            await context.abort(StatusCode.UNKNOWN, "")
        model = Model(request.model_name, request.url, archive, request)
        fake.models[request.model_name, archive.version] = model
        await self._give_workers(model, request.initial_workers, context)
        return management.ManagementResponse(msg=f'Model "{request.model_name}" registered')

    async def ScaleWorker(  # noqa: N802
        self, request: management.ScaleWorkerRequest, context: Any
    ) -> management.ManagementResponse:
        await self._fake.check_key(context, "management")
        self._fake.asked["ScaleWorker"] += 1
        found = self._fake.find(request.model_name, request.model_version)
        if not found:
            await _unknown(context, StatusCode.NOT_FOUND, request.model_name)
        await self._give_workers(found[0], request.min_worker, context)
        return management.ManagementResponse(msg="Workers scaled")

    async def UnregisterModel(  # noqa: N802
        self, request: management.UnregisterModelRequest, context: Any
    ) -> management.ManagementResponse:
        await self._fake.check_key(context, "management")
        self._fake.asked["UnregisterModel"] += 1
        if (request.model_name, request.model_version) not in self._fake.models:
            await _unknown(context, StatusCode.NOT_FOUND, request.model_name)
        self._fake.remove(request.model_name, request.model_version)
        return management.ManagementResponse(msg=f'Model "{request.model_name}" unregistered')

    async def ListModels(self, request: Any, context: Any) -> management.ManagementResponse:  # noqa: N802
        await self._fake.check_key(context, "management")
        return management.ManagementResponse(msg='{"models": []}')

    async def SetDefault(self, request: Any, context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def _give_workers(self, model: Model, count: int, context: Any) -> None:
        self._fake.add_workers(model, count)
        if not count:
            return
        if not model.archive.starts:
            await context.abort(StatusCode.INTERNAL, f"Failed to start workers for model {model.name}\n{_FAILED}")
        await self._fake.wait_until_up(model)


def _metadata(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return {}


@asynccontextmanager
async def running(fake: FakeTorchServe) -> AsyncIterator[FakeTorchServe]:
    """Start ``fake``, and stop it after the block."""
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()


def manifests_of(**of_models: Mapping[str, Any]) -> FakeManifests:
    """Return manifests of the book's pipeline, in which all models share one name, with further keys by model id."""
    pipeline = {"Algorithm": "intent-classification-torch", "ModelName": "intent", "ModelVersion": "1.0"}
    return FakeManifests(pipeline, of_models)


@asynccontextmanager
async def asking(
    fake: FakeTorchServe, manifests: FakeManifests | None = None, **options: Any
) -> AsyncIterator[TorchServeBackend]:
    """Yield a frontend's backend before a running fake."""
    backend = TorchServeBackend(*fake.targets, manifests or manifests_of(), TorchServeOptions(**options))
    try:
        yield backend
    finally:
        await backend.close()
