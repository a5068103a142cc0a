"""TLS: negotiation of the protocol, certificates of callers and replacement of certificates."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from grpc import StatusCode

from grpc_http2.wire import framed
from tests.builders import PATIENCE
from tests.end_to_end.transports.certificates import Authority, der_of
from tests.grpc_http2.server.peers import Peer, peer_of
from tests.grpc_http2.server.service import BOTH, ONE, Hosted, hosted
from tests.grpc_http2.server.web import Web

OK = "0"
Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.fixture(scope="module")
def pairs(authority: Authority) -> tuple[Pair, Pair]:
    return authority.signed("first"), authority.signed("second")


def serving(pair: Pair, callers: Authority | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    if callers is not None:
        context.load_verify_locations(callers.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def calling(authority: Authority, *protocols: str, pair: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.certificate)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if pair is not None:
        context.load_cert_chain(*pair)
    return context


async def test_calls_go_encrypted(authority: Authority, pairs: tuple[Pair, Pair]) -> None:
    async with (
        hosted(tls=serving(pairs[0])) as served,
        peer_of(served.port, tls=calling(authority, "h2")) as peer,
    ):
        response = await peer.asked(b"x" * 100_000)
        assert (response.status, len(response.message)) == (OK, 100_000)


async def test_a_peer_that_agrees_on_nothing_may_speak_either(authority: Authority, pairs: tuple[Pair, Pair]) -> None:
    async with hosted(Web(), serving(pairs[0])) as served:
        async with peer_of(served.port, tls=calling(authority)) as peer:
            assert (await peer.asked(b"a")).message == b"a"
        assert await http1_answer(served, calling(authority)) == b"HTTP/1.1 200 OK"


async def test_http_1_1_is_spoken_where_it_is_agreed_on(authority: Authority, pairs: tuple[Pair, Pair]) -> None:
    async with hosted(Web(), serving(pairs[0])) as served:
        assert await http1_answer(served, calling(authority, "http/1.1")) == b"HTTP/1.1 200 OK"
        # HTTP/2 is preferred.
        _, writer = await connected(served, calling(authority, "http/1.1", "h2"))
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.transport.abort()


async def http1_answer(served: Hosted, tls: ssl.SSLContext) -> bytes:
    reader, writer = await connected(served, tls)
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    try:
        return (await asyncio.wait_for(reader.readline(), PATIENCE)).strip()
    finally:
        writer.transport.abort()


async def connected(served: Hosted, tls: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", served.port, ssl=tls, server_hostname="localhost")


async def test_callers_prove_who_they_are(authority: Authority, pairs: tuple[Pair, Pair]) -> None:
    async with hosted(Web(), serving(pairs[0], authority)) as served:
        async with peer_of(served.port, tls=calling(authority, "h2", pair=pairs[1])) as peer:
            assert (await peer.asked(b"a")).message == b"a"
            (connection,) = served.server._connections
            certificate = connection.peer.certificate()
            assert certificate is not None
            assert ssl.PEM_cert_to_DER_cert(certificate.decode()) == der_of(pairs[1][0])
        assert await answer_if_any(served, calling(authority, "http/1.1")) == b""


async def answer_if_any(served: Hosted, tls: ssl.SSLContext) -> bytes:
    """Return the answer, or nothing if there is an error: with TLS 1.3 a client learns late that it is refused."""
    try:
        return await http1_answer(served, tls)
    except OSError:
        return b""


async def test_a_certificate_is_replaced_and_no_connection_is_lost(
    authority: Authority, pairs: tuple[Pair, Pair]
) -> None:
    async with hosted(tls=serving(pairs[0])) as served:
        tls = calling(authority, "h2")
        async with peer_of(served.port, tls=tls) as before:
            stream = before.headers(BOTH)
            before.data(stream, framed(b"before"))
            await before.ping()
            # Clients that have connected and have not been accepted keep their connection too.
            waiting = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(3)]
            await served.server.replace_tls(serving(pairs[1]))
            for client in waiting:
                client.setblocking(False)
                _, writer = await asyncio.open_connection(sock=client, ssl=tls, server_hostname="localhost")
                writer.transport.abort()
            async with peer_of(served.port, tls=tls) as after:
                shown = after.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                assert shown == der_of(pairs[1][0])
                assert (await after.asked(b"a")).message == b"a"
            before.data(stream, framed(b"after"), last=True)
            response = await before.response(stream)
            assert (response.status, response.body) == (OK, framed(b"before") + framed(b"after"))


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"], ids=["nothing", "half a hello"])
async def test_a_handshake_that_does_not_end_ends_the_connection(said: bytes, pairs: tuple[Pair, Pair]) -> None:
    async with hosted(tls=serving(pairs[0]), handshake_seconds=0.2) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(said)
        try:
            assert await asyncio.wait_for(reader.read(), PATIENCE) is not None
        except ConnectionError:
            """A reset is as good as a close."""
        writer.transport.abort()


async def test_plain_calls_to_an_encrypted_port_end_and_harm_nobody(
    authority: Authority, pairs: tuple[Pair, Pair]
) -> None:
    async with hosted(tls=serving(pairs[0])) as served:
        async with peer_of(served.port) as plain:
            plain.call(b"a")
            await plain.end()
        async with peer_of(served.port, tls=calling(authority, "h2")) as peer:
            response = await peer.asked(b"a", ONE)
            assert response.status == str(StatusCode.OK.value[0])


async def test_a_slow_reader_behind_tls_is_waited_for(authority: Authority, pairs: tuple[Pair, Pair]) -> None:
    async with hosted(tls=serving(pairs[0])) as served:
        peer = await Peer.connect(served.port, tls=calling(authority, "h2"))
        stream = peer.call(b"300x100000", "/test.Service/Many")
        sent = -1
        while sent != served.service.sent:
            sent = served.service.sent
            await asyncio.sleep(0.2)
        assert sent < 25 << 20
        assert len((await peer.response(stream)).body) == 300 * 100_005
        peer.close()
