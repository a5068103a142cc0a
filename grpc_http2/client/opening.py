"""Opening of a connection to an address."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from grpc_http2.client.connection import Connection, Owner
from grpc_http2.client.settings import ChannelSettings, Tls

_UNIX: Final = "unix:"
_GOODBYE_SECONDS: Final = 1.0


async def open_connection(address: str, owner: Owner, settings: ChannelSettings, tls: Tls | None) -> Connection:
    """Return a connection on which calls can be started.

    Raises:
        OSError: no server answers at the address in time and with HTTP/2, or its certificate is not the right one.
        UnicodeError: the address is invalid.
    """
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {}
    if tls is not None:
        options = {
            "ssl": tls.context(),
            "server_hostname": tls.server_name or _host_of(address),
            "ssl_handshake_timeout": settings.connect_seconds,
            "ssl_shutdown_timeout": _GOODBYE_SECONDS,
        }
    async with asyncio.timeout(settings.connect_seconds):
        connection = Connection(owner, settings)
        try:
            if address.startswith(_UNIX):
                transport, _ = await loop.create_unix_connection(
                    lambda: connection, address.removeprefix(_UNIX), **options
                )
            else:
                host, port = _host_of(address), int(address.rpartition(":")[2])
                transport, _ = await loop.create_connection(lambda: connection, host, port, **options)
            if tls is not None:
                _check_protocol(transport)
            await connection.opened
        except BaseException:
            connection.close("the connection was no longer needed")
            raise
    return connection


def _check_protocol(transport: asyncio.BaseTransport) -> None:
    if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
        raise ConnectionError("the server does not speak HTTP/2")


def authority_of(address: str, tls: Tls | None) -> str:
    """Return the ``:authority`` of requests."""
    if tls is not None and tls.server_name is not None:
        return tls.server_name
    return "localhost" if address.startswith(_UNIX) else address


def _host_of(address: str) -> str:
    return "localhost" if address.startswith(_UNIX) else address.rpartition(":")[0].strip("[]")
