"""The ports of a service, reserved before its workers listen on them."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

from grpc_http2.server.listening import NOT_OF_THIS_MACHINE, is_ipv6_only
from serving.transport.hosts.listening import cannot_listen


class Reservation:
    """Sockets that are bound and never listen.

    In this way, port 0 becomes one port for all workers, and a port that another process holds is detected before any
    worker starts. ``SO_REUSEPORT`` is set only after ``bind``: a socket that has it set before can share a port with
    any other process of this user that has set it too.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def take(self, host: str, port: int, purpose: str = "") -> int:
        """Reserve a port on every address of ``host`` that this machine has, and return it.

        Args:
            host: address or name.
            port: port to reserve; 0 for a free one.
            purpose: completes "cannot listen on …" in the message of the error.

        Raises:
            CannotListen: the port cannot be reserved.
        """
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            missing: OSError | None = None
            bound = False
            for family, _, _, _, address in found:
                try:
                    port, bound = self._bind(family, (address[0], port, *address[2:])), True
                except OSError as error:
                    if error.errno not in NOT_OF_THIS_MACHINE:
                        raise
                    missing = error
            if missing is not None and not bound:
                raise missing
        except (OSError, UnicodeError) as error:
            raise cannot_listen(host, port, error, purpose) from error
        return port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for each in self._sockets:
            each.close()

    def _bind(self, family: int, address: tuple[str | int, ...]) -> int:
        taken = socket.socket(family, socket.SOCK_STREAM)
        self._sockets.append(taken)
        if family == socket.AF_INET6:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_ipv6_only(address[0]))
        # Connections of a previous process may linger on the port, but a second supervisor must fail to bind.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return int(taken.getsockname()[1])
