"""What tests of the REST form are built from: its ASGI application before an engine, and requests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from frontend.backends.backend import Backend
from frontend.open_inference.rest.application import rest_application
from frontend.open_inference.rest.endpoint import Limits
from serving.stubs import open_inference_pb2_grpc as pb_grpc
from serving.transport.admission import Admission
from serving.transport.asgi.application import Application, GrpcApplication
from serving.transport.boundary import Boundary
from serving.transport.guards import Guards
from tests.builders import PATIENCE
from tests.frontend.open_inference import servicer_before
from tests.serving.asgi.fake_server import FakeServer

LIMIT: Final = 1 << 12
INFER: Final = "/v2/models/model/infer"


@dataclass(frozen=True)
class RestAnswer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of a refusal, which is all of it."""
        (message,) = self.json().values()
        assert self.json() == {"error": message}
        return str(message)


@dataclass
class RestRequest:
    """A request under way."""

    server: FakeServer

    async def answer(self) -> RestAnswer:
        await self.server.ended()
        start, *pieces = self.server.sent
        assert [event["type"] for event in self.server.sent] == ["http.response.start", "http.response.body"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
        body = b"".join(piece["body"] for piece in pieces)
        assert headers["content-length"] == str(len(body))
        return RestAnswer(start["status"], headers, body)


@dataclass
class RestCaller:
    """A client without a network."""

    application: Application
    boundary: Boundary

    async def get(self, path: str, **headers: str) -> RestAnswer:
        return await self.start("GET", path, headers=headers).answer()

    async def post(self, path: str, body: Any = b"", **headers: str) -> RestAnswer:
        """Send a body: bytes as they are, anything else as JSON. Headers are written with _ for -."""
        return await self.start("POST", path, body, headers=headers).answer()

    def start(
        self,
        method: str,
        path: str,
        body: Any = b"",
        *,
        whole: bool = True,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> RestRequest:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        # Of two headers of one name the later one counts, and the fake server has one of gRPC.
        all_headers = {"content-type": "application/json"} | dict(headers)
        pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in all_headers.items()]
        server = FakeServer(self.application, method=method, path=path, headers=pairs)
        server.send_body(sent, more=not whole)
        return RestRequest(server)


@asynccontextmanager
async def rest_before(
    models: Path, backend: Backend, *, max_in_flight: int = 16, seconds: float = PATIENCE, **options: Any
) -> AsyncIterator[RestCaller]:
    """Give a caller of the REST form of the real servicer, over models in files, before ``backend``."""
    async with servicer_before(models, backend, **options) as servicer:
        yield rest_caller(servicer, max_in_flight=max_in_flight, seconds=seconds)


def rest_caller(
    servicer: pb_grpc.GRPCInferenceServiceServicer, *, max_in_flight: int = 16, seconds: float = PATIENCE
) -> RestCaller:
    """Return a caller of the REST form of ``servicer``, on the port where gRPC is served, too."""
    port = GrpcApplication(max_message_bytes=LIMIT, unary_seconds=seconds)
    boundary = Boundary(port, default_deadline=seconds, guards=Guards(admission=Admission(max_in_flight)))
    port.otherwise = rest_application(servicer, Limits(LIMIT, seconds), boundary)
    return RestCaller(port, boundary)


def documents(*texts: str, shape: Sequence[int] | None = None, **keys: Any) -> dict[str, Any]:
    """Return the JSON of a request."""
    tensor = {"name": "document", "datatype": "BYTES", "shape": shape or [len(texts)], "data": list(texts)}
    return {"inputs": [tensor], **keys}
