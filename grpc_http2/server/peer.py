"""The peer of a connection: its address and its certificate."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, Self


class Peer:
    """A peer.

    Args:
        name: name of the peer's socket: for TCP, address and port come first.
        tls: encryption of the connection; ``None`` without any.
    """

    __slots__ = ("_name", "_tls")

    def __init__(self, name: Any = None, tls: ssl.SSLObject | None = None) -> None:
        self._name = name
        self._tls = tls

    @classmethod
    def of(cls, transport: asyncio.Transport) -> Self:
        """Return the peer of an open transport; a closed one may no longer know its peer."""
        return cls(transport.get_extra_info("peername"), transport.get_extra_info("ssl_object"))

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self._tls is not None

    def name(self) -> str:
        """Return the address in gRPC's notation."""
        address = self.address()
        if address is None:
            return "unknown"
        host, port = address
        return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def address(self) -> tuple[str, int] | None:
        """Return address and port; ``None`` if the peer has none."""
        name = self._name
        return (name[0], name[1]) if isinstance(name, tuple) else None

    def certificate(self) -> bytes | None:
        """Return the certificate in PEM; ``None`` without one."""
        found = None if self._tls is None else self._tls.getpeercert(binary_form=True)
        return None if found is None else ssl.DER_cert_to_PEM_cert(found).encode("ascii")
