"""The program under test as a separate process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.end_to_end.processes import Service, start, wait_until_ended

PROGRAM = "tests.end_to_end.transports"


@contextmanager
def running(folder: Path, transport: str, *flags: str, port: int = 0) -> Iterator[Service]:
    """Yield a ready process, which a test may end; after the block, nothing that it has started is left.

    The process chooses its own port: one that was found in advance might be taken in the meantime.
    """
    folder.mkdir(exist_ok=True)
    service = start(PROGRAM, folder, folder, *flags, transport=transport, port=port)
    try:
        address = service.wait_until_logged("ready")["address"]
        family = service.family()
        yield Service(service.name, address, service.process, service.log)
    finally:
        service.kill()
    wait_until_ended(family)


@contextmanager
def held_port() -> Iterator[int]:
    """Yield a port that is given to no other process, and that a server of ours can still listen on."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])
