"""A fake engine of the Open Inference Protocol behind a real socket, and a backend before it.

No real engine refuses with a chosen status, hangs, or answers in a chosen form when a test asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from grpc import StatusCode

from frontend.engines.open_inference.backend import OpenInferenceBackend
from serving.domain.prediction import Outcome, Prediction, Query
from serving.stubs import open_inference_pb2 as pb
from serving.wire.raw_tensors import pack_bytes, pack_floats, unpack_bytes
from tests.fakes.manifests import FakeManifests

SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

Output = pb.ModelInferResponse.InferOutputTensor

INSIDES: Final = "Traceback: /opt/engine/secret.py 10.1.2.3"
"""Text that no caller may read."""


class Refusal(Exception):
    """An exception that makes the fake engine refuse."""

    def __init__(self, code: StatusCode, details: str = INSIDES) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class FakeOpenInference:
    """An engine that answers each document with itself, unless ``check`` refuses the documents of a request."""

    def __init__(self, check: Callable[[list[str]], Awaitable[None]] | None = None, *, raw: bool | None = None) -> None:
        self.check = check
        self.raw = raw
        self.ready: bool | None = True
        """``None``: the engine does not implement the method."""
        self.described: pb.ModelMetadataResponse | None = None
        """``None``: the engine does not implement the method."""
        self.asked: list[pb.ModelInferRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.asked_whether_ready = asyncio.Event()
        self.at_once = self.most_at_once = 0

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:  # noqa: N802
        self.asked.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.check is not None:
                await self.check(documents_in(request))
        except Refusal as refusal:
            await context.abort(refusal.code, refusal.details)
        finally:
            self.at_once -= 1
        return self._answer(request)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Any) -> pb.ServerReadyResponse:  # noqa: N802
        self.asked_whether_ready.set()
        if self.ready is None:
            await context.abort(StatusCode.UNIMPLEMENTED, "Method not found!")
        return pb.ServerReadyResponse(ready=bool(self.ready))

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:  # noqa: N802
        if self.described is None:
            await context.abort(StatusCode.UNIMPLEMENTED, INSIDES)
        return self.described or pb.ModelMetadataResponse()

    @property
    def sizes(self) -> list[int]:
        return [len(documents_in(request)) for request in self.asked]

    def _answer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        texts = [document.encode() for document in documents_in(request)]
        scores = [0.5] * len(texts)
        label = Output(name="label", datatype="BYTES", shape=request.inputs[0].shape)
        score = Output(name="score", datatype="FP32", shape=request.inputs[0].shape)
        response = pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        # By default, the fake answers in the form of the request, as MLServer does.
        if bool(request.raw_input_contents) if self.raw is None else self.raw:
            response.raw_output_contents.extend([pack_bytes(texts), pack_floats(scores)])
        else:
            label.contents.bytes_contents.extend(texts)
            score.contents.fp32_contents.extend(scores)
        response.outputs.extend([label, score])
        return response


def documents_in(request: pb.ModelInferRequest) -> list[str]:
    typed = request.inputs[0].contents.bytes_contents
    return [text.decode() for text in typed or unpack_bytes(request.raw_input_contents[0])]


@asynccontextmanager
async def serving(engine: FakeOpenInference, port: int = 0) -> AsyncIterator[str]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer: Any = engine
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name),
            request_deserializer=getattr(pb, f"{name}Request").FromString,
            response_serializer=getattr(pb, f"{name}Response").SerializeToString,
        )
        for name in ("ModelInfer", "ModelMetadata", "ServerReady")
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    taken = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{taken}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def asking(
    address: str, manifests: FakeManifests | None = None, **options: Any
) -> AsyncIterator[OpenInferenceBackend]:
    backend = OpenInferenceBackend(address, manifests=manifests or FakeManifests(), **options)
    try:
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def before(engine: FakeOpenInference, **keys: Any) -> AsyncIterator[OpenInferenceBackend]:
    async with serving(engine) as address, asking(address, FakeManifests(keys)) as backend:
        yield backend


def queries(*documents: str, model: str = "m") -> list[Query]:
    return [Query(model, document) for document in documents]


def told(outcomes: Sequence[Outcome | None]) -> list[str | None]:
    """Return the labels of predictions and the class names of errors; ``None`` for a missing outcome."""
    return [
        outcome.label if isinstance(outcome, Prediction) else None if outcome is None else type(outcome).__name__
        for outcome in outcomes
    ]


def refusing(code: StatusCode, *bad: str, details: str = INSIDES) -> Callable[[list[str]], Awaitable[None]]:
    async def check(documents: list[str]) -> None:
        if not bad or set(bad) & set(documents):
            raise Refusal(code, details)

    return check
