"""The caller's credential in the metadata of every call. Requests to our services are single messages."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc


class _Details(NamedTuple):
    """Details of a blocking call; the type that gRPC passes to interceptors cannot be changed."""

    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class Signed(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Sends the credential with every call of a blocking channel.

    Args:
        entry: key and value of the metadata.
    """

    def __init__(self, entry: tuple[str, str]) -> None:
        self._entry = entry

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Pass the call on, with the credential."""
        return continuation(self._with_credential(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Pass the call on, with the credential."""
        return continuation(self._with_credential(client_call_details), request)

    def _with_credential(self, details: Any) -> Any:
        return _Details(
            details.method,
            details.timeout,
            (*(details.metadata or ()), self._entry),
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


def async_signed(entry: tuple[str, str]) -> tuple[grpc.aio.ClientInterceptor, ...]:
    """Return the interceptors that send the credential with every call of an asyncio channel of grpcio."""
    return _AsyncSigned(entry), _AsyncSignedStream(entry)


class _AsyncSigned(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, entry: tuple[str, str]) -> None:
        self._entry = entry

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Pass the call on, with the credential."""
        return await continuation(_async_details(client_call_details, self._entry), request)


class _AsyncSignedStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, entry: tuple[str, str]) -> None:
        self._entry = entry

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Pass the call on, with the credential."""
        return await continuation(_async_details(client_call_details, self._entry), request)


def _async_details(details: Any, entry: tuple[str, str]) -> Any:
    return details._replace(metadata=grpc.aio.Metadata(*(details.metadata or ()), entry))
