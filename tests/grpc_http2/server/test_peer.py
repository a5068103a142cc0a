from __future__ import annotations

from typing import Any

import pytest

from grpc_http2.server.peer import Peer
from tests.fakes.transport import FakeTransport


@pytest.mark.parametrize(
    ("socket_name", "name", "address"),
    [
        (("192.0.2.1", 50_000), "ipv4:192.0.2.1:50000", ("192.0.2.1", 50_000)),
        (("2001:db8::1", 50_000, 0, 0), "ipv6:%5B2001:db8::1%5D:50000", ("2001:db8::1", 50_000)),
        ("", "unknown", None),
        (None, "unknown", None),
    ],
    ids=["IPv4", "IPv6", "Unix", "none"],
)
def test_a_peer_is_named_as_grpc_does(socket_name: Any, name: str, address: tuple[str, int] | None) -> None:
    peer = Peer(socket_name)
    assert (peer.name(), peer.address()) == (name, address)


def test_a_peer_without_tls_has_no_certificate() -> None:
    peer = Peer.of(FakeTransport(None))
    assert peer.name() == "ipv4:192.0.2.1:50000"
    assert not peer.uses_tls
    assert peer.certificate() is None
