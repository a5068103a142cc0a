"""The parts that all Python clients of a frontend share."""

from __future__ import annotations

import difflib
from dataclasses import fields
from types import TracebackType
from typing import Any, ClassVar, Final, Never, Self

from intent_serving_client.channels import PLAIN, ChannelOptions, open_async_channel, open_channel
from intent_serving_client.peer import Peer

DEFAULT_ADDRESS: Final = "127.0.0.1:51001"


class Client:
    """A client of one service of a frontend.

    Args:
        address: address of the frontend, ``host:port``.
        timeout: timeout of a call in seconds, unless the call sets its own; ``None``: the default of the client.
        options: TLS, and the caller's certificate and credential.

    Raises:
        InvalidConnection: the files or the credential of ``options`` cannot be used.
        TypeError: an argument of another name.
    """

    _open: ClassVar[staticmethod[[str, ChannelOptions], Any]]
    _stub_of: ClassVar[type[Any]]
    """Stub of the service. The published types of stubs cover only blocking calls."""
    _default_timeout_seconds: ClassVar[float]

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float | None = None,
        options: ChannelOptions = PLAIN,
        **unknown: Never,
    ) -> None:
        for name in unknown:
            raise TypeError(_of_unknown(type(self).__name__, name))
        self._timeout = self._default_timeout_seconds if timeout is None else timeout
        self._channel = self._open(address, options)
        self._stub = self._stub_of(self._channel)
        self._peer = Peer("frontend", address, options)
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


def _of_unknown(client: str, name: str) -> str:
    """Return what to write instead of an argument that a client does not have."""
    own = ("address", "timeout", "options")
    of_options = [field.name for field in fields(ChannelOptions)]
    meant = name if name in of_options else next(iter(difflib.get_close_matches(name, (*own, *of_options), n=1)), "")
    if meant in of_options:
        return f"{client} has no argument {name!r}; write options=ChannelOptions({meant}=...)"
    return f"{client} has no argument {name!r}; " + (f"write {meant}=..." if meant else f"it has {', '.join(own)}")
