"""Builders for tests of the REST API: the real server in front of an engine, and a client of HTTP/1.1."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from frontend.engines.backend import Backend
from frontend.open_inference.rest.application import rest_application
from serving.transport.admission import Admission
from serving.transport.guards import Guards
from serving.transport.hosts.http2 import Http2Host
from tests.builders import PATIENCE, server_settings
from tests.frontend.open_inference.running import servicer_before

LIMIT: Final = 1 << 12
INFER: Final = "/v2/models/model/infer"


@dataclass(frozen=True)
class RestAnswer:
    """An answer of the server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The message of a refusal, whose body holds nothing else."""
        (message,) = self.json().values()
        assert self.json() == {"error": message}
        return str(message)


@dataclass
class RestRequest:
    """A request under way, on its own connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_chunked: bool

    def send(self, data: bytes, *, last: bool = False) -> None:
        """Send part of the body."""
        if not self.is_chunked:
            self.writer.write(data)
            return
        if data:
            self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        if last:
            self.writer.write(b"0\r\n\r\n")

    async def answer(self) -> RestAnswer:
        """Return the answer, whose ``content-length`` gives the size of its body."""
        async with asyncio.timeout(PATIENCE):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in lines if line)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            body = await self.reader.readexactly(int(headers["content-length"]))
        self.leave()
        return RestAnswer(int(first.split()[1]), headers, body)

    def leave(self) -> None:
        """Close the connection."""
        self.writer.transport.abort()


@dataclass
class RestCaller:
    """A client of the REST API."""

    port: int
    admission: Admission

    async def get(self, path: str, **headers: str) -> RestAnswer:
        return await (await self.start("GET", path, headers=headers)).answer()

    async def post(self, path: str, body: Any = b"", **headers: str) -> RestAnswer:
        """Send a body: bytes as they are, anything else as JSON. The names of headers have ``_`` for ``-``."""
        return await (await self.start("POST", path, body, headers=headers)).answer()

    async def start(
        self,
        method: str,
        path: str,
        body: Any = b"",
        *,
        whole: bool = True,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> RestRequest:
        """Send a request, or its beginning; a body that is not whole and has no stated length is sent in chunks."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        all_headers = {"host": "localhost", "content-type": "application/json"} | named
        is_chunked = not whole and "content-length" not in all_headers
        length = {"transfer-encoding": "chunked"} if is_chunked else {"content-length": str(len(sent))}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in (length | all_headers).items())]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        request = RestRequest(reader, writer, is_chunked)
        request.send(sent)
        return request

    async def under_way(self, number: int) -> None:
        """Wait until ``number`` calls are in flight."""
        async with asyncio.timeout(PATIENCE):
            while self.admission.in_flight != number:  # noqa: ASYNC110 - the server is looked at from outside
                await asyncio.sleep(0.001)


@asynccontextmanager
async def rest_before(
    models: Path, backend: Backend, *, max_in_flight: int = 16, seconds: float = PATIENCE, **options: Any
) -> AsyncIterator[RestCaller]:
    """Yield a client of the REST API of the real servicer, with models in files, in front of ``backend``."""
    admission = Admission(max_in_flight)
    async with servicer_before(models, backend, **options) as servicer:
        host = Http2Host(
            server_settings(models, default_deadline_seconds=seconds),
            [],
            Guards(admission=admission),
            web=lambda boundary: rest_application(servicer, LIMIT, boundary),
        )
        address = await host.start()
        try:
            yield RestCaller(int(address.rpartition(":")[2]), admission)
        finally:
            await host.stop(0)


def documents(*texts: str, shape: Sequence[int] | None = None, **keys: Any) -> dict[str, Any]:
    """Return the JSON of a request with ``texts`` as its documents."""
    tensor = {"name": "document", "datatype": "BYTES", "shape": shape or [len(texts)], "data": list(texts)}
    return {"inputs": [tensor], **keys}
