"""Callers of the service under test, one per client library, all with the same interface."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final

import grpc

from tests.builders import PATIENCE
from tests.end_to_end.transports.notebook import Notebook
from tests.end_to_end.transports.orders import Echo, Metadata, Order, metadata_of_plain, plain_metadata
from tests.end_to_end.transports.program import ECHO, GUARDED, EchoServicer

_STREAMS: Final = {
    f"/{ECHO}/{name}": (handler.request_streaming, handler.response_streaming)
    for name, handler in EchoServicer(Notebook()).handlers().items()
}
# Headers of the protocol, which some client libraries do not hide.
_OF_HTTP: Final = {"content-type", "grpc-accept-encoding", "grpc-encoding", "accept-encoding"}


@dataclass(frozen=True)
class Tls:
    """TLS credentials of a caller, in PEM."""

    authority: bytes
    certificate: bytes | None = None
    key: bytes | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


@dataclass(frozen=True)
class Answer:
    """Outcome of a call, as the caller received it."""

    code: str
    message: str
    echoes: list[Echo]
    initial: Metadata
    trailing: Metadata


@dataclass(frozen=True)
class Request:
    """A call to make."""

    address: str
    path: str
    orders: tuple[Order, ...]
    metadata: Metadata
    seconds: float | None
    gzip: bool
    tls: Tls | None

    @property
    def streams(self) -> tuple[bool, bool]:
        """Whether the request and the response are streams."""
        return _STREAMS.get(self.path, (False, False))

    @property
    def compression(self) -> grpc.Compression:
        return grpc.Compression.Gzip if self.gzip else grpc.Compression.NoCompression


class Caller(ABC):
    """A client library. Each call has its own connection."""

    def call(
        self,
        address: str,
        method: str,
        *orders: Order,
        metadata: Metadata = (),
        seconds: float | None = PATIENCE,
        gzip: bool = False,
        tls: Tls | None = None,
    ) -> Answer:
        """Call ``method`` of the echo service, or any method by its path."""
        return self.answer_to(Request(address, path_of(method), orders, metadata, seconds, gzip, tls))

    @abstractmethod
    def answer_to(self, request: Request) -> Answer:
        """Make the call as the library does."""


def path_of(method: str) -> str:
    return method if method.startswith("/") else f"/{ECHO}/{method}"


def guarded(method: str) -> str:
    """Return the path of a method behind the boundary."""
    return f"/{GUARDED}/{method}"


class SyncCaller(Caller):
    """grpcio, blocking."""

    def answer_to(self, request: Request) -> Answer:
        with _channel(grpc, request) as channel:
            start, message, streams_response = _started(channel, request)
            options: Any = {
                "timeout": request.seconds,
                "metadata": request.metadata,
                "compression": request.compression,
            }
            call = start(message, **options) if streams_response else start.future(message, **options)
            echoes: list[Echo] = []
            try:
                for echo in call if streams_response else [call.result()]:
                    echoes.append(echo)  # noqa: PERF402 - answers before an error count
            except grpc.RpcError:
                # The code is read below, like that of a successful call.
                pass
            return _answer(call.code(), call.details(), echoes, call.initial_metadata(), call.trailing_metadata())


class AsyncCaller(Caller):
    """grpc.aio."""

    def answer_to(self, request: Request) -> Answer:
        async def make() -> Answer:
            async with _channel(grpc.aio, request) as channel:
                start, message, streams_response = _started(channel, request)
                metadata = grpc.aio.Metadata(*request.metadata)
                call = start(message, timeout=request.seconds, metadata=metadata, compression=request.compression)
                echoes: list[Echo] = []
                try:
                    if streams_response:
                        async for echo in call:
                            echoes.append(echo)  # noqa: PERF401 - answers before an error count
                    else:
                        echoes.append(await call)
                except grpc.aio.AioRpcError:
                    # The code is read below, like that of a successful call.
                    pass
                return _answer(
                    await call.code(),
                    await call.details(),
                    echoes,
                    await call.initial_metadata(),
                    await call.trailing_metadata(),
                )

        return asyncio.run(make())


class NodeCaller(Caller):
    """grpc-js, in a separate process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answer_to(self, request: Request) -> Answer:
        tls = request.tls
        told = {
            "address": request.address,
            "path": request.path,
            "streams": request.streams,
            "messages": [base64.b64encode(order.to_wire()).decode() for order in request.orders],
            "metadata": plain_metadata(request.metadata),
            "seconds": request.seconds,
            "gzip": request.gzip,
            "tls": None if tls is None else {key: value and value.decode() for key, value in vars(tls).items()},
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return _answer(
            _CODES[answer["code"]],
            answer["message"],
            [Echo.from_wire(base64.b64decode(message)) for message in answer["messages"]],
            metadata_of_plain(answer["initial"]),
            metadata_of_plain(answer["trailing"]),
        )


_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def _channel(library: Any, request: Request) -> Any:
    options = (("grpc.use_local_subchannel_pool", 1),)
    if request.tls is None:
        return library.insecure_channel(request.address, options=options)
    return library.secure_channel(request.address, request.tls.credentials(), options=options)


def _started(channel: Any, request: Request) -> tuple[Any, Any, bool]:
    """Return the function that starts the call, its argument, and whether the response is a stream."""
    streams_request, streams_response = request.streams
    kind = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[streams_request, streams_response]
    start = kind(request.path, request_serializer=Order.to_wire, response_deserializer=Echo.from_wire)
    return start, iter(request.orders) if streams_request else request.orders[0], streams_response


def _answer(code: grpc.StatusCode, message: str | None, echoes: list[Echo], initial: Any, trailing: Any) -> Answer:
    return Answer(code.name, message or "", echoes, _metadata(initial), _metadata(trailing))


def _metadata(pairs: Any) -> Metadata:
    return tuple(sorted((key, value) for key, value in pairs or () if key not in _OF_HTTP))
