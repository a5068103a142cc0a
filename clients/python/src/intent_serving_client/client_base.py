"""The parts that all Python clients of a frontend share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import grpc

from intent_serving_client.channels import PLAIN, ChannelOptions, open_async_channel, open_channel
from intent_serving_client.remote import error_of_call

DEFAULT_ADDRESS: Final = "127.0.0.1:51001"


class Client:
    """A client of one service of a frontend.

    Args:
        address: address of the frontend, ``host:port``.
        timeout: timeout of a call in seconds, unless the call sets its own; ``None``: the default of the client.
        options: TLS, and the caller's certificate and credential.

    Raises:
        InvalidConnection: the files or the credential of ``options`` cannot be used.
    """

    _open: ClassVar[staticmethod[[str, ChannelOptions], Any]]
    _stub_of: ClassVar[type[Any]]
    """Stub of the service. The published types of stubs cover only blocking calls."""
    _default_timeout_seconds: ClassVar[float]

    def __init__(
        self, address: str = DEFAULT_ADDRESS, *, timeout: float | None = None, options: ChannelOptions = PLAIN
    ) -> None:
        self._timeout = self._default_timeout_seconds if timeout is None else timeout
        self._channel = self._open(address, options)
        self._stub = self._stub_of(self._channel)
        self._is_closed = False

    def _open_stub(self) -> Any:
        if self._is_closed:
            raise ValueError("the client is closed; create another one")
        return self._stub

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


class BlockingClient(Client):
    """A client whose calls block. Safe to use from several threads."""

    _open = staticmethod(open_channel)

    def close(self) -> None:
        """Close the connection. Every later call raises ValueError."""
        self._is_closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(Client):
    """A client for asyncio. Belongs to the event loop that created it."""

    _open = staticmethod(open_async_channel)

    async def close(self) -> None:
        """Close the connection. Every later call raises ValueError."""
        self._is_closed = True
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


@contextmanager
def typed_errors(service: str = "frontend") -> Iterator[None]:
    """Raise the typed form of a gRPC error of ``service``. Both kinds of channel raise errors with the same methods."""
    try:
        yield
    except grpc.RpcError as error:
        failed: Any = error
        raise error_of_call(failed, service) from error
