"""TLS, and which peers are accepted over it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from grpc_http2.client.channel import Channel
from grpc_http2.client.encryption import client_context
from grpc_http2.client.settings import ChannelSettings, Tls
from tests.builders import PATIENCE
from tests.end_to_end.transports.certificates import Authority
from tests.grpc_http2.client.peers import Service, error_of, grpcio_server, one_of

QUICK = ChannelSettings(connect_seconds=PATIENCE, first_backoff_seconds=0.05, max_backoff_seconds=0.1)


@asynccontextmanager
async def serving(folder: Path, *, asks: bool, names: str = "IP:127.0.0.1") -> AsyncIterator[tuple[Authority, str]]:
    """Yield the authority and the address of a server.

    Args:
        folder: the folder of the certificates.
        asks: whether callers must present a certificate.
        names: the names in the certificate of the server.
    """
    authority = Authority(folder, "authority")
    certificate, key = authority.signed("server", names)
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        authority.certificate.read_bytes() if asks else None,
        require_client_auth=asks,
    )
    async with grpcio_server(Service(), credentials=credentials) as address:
        yield authority, address


def tls(authority: Authority, caller: tuple[Path, Path] | None = None, name: str | None = None) -> Tls:
    certificate, key = (None, None) if caller is None else (file.read_bytes() for file in caller)
    return Tls(lambda: client_context(authority.certificate.read_bytes(), certificate, key), name)


async def test_messages_go_over_tls_both_ways(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, asks=False) as (authority, address),
        Channel([address], tls=tls(authority)) as channel,
    ):
        for size in (1, 100_000, 3 << 20):
            assert await one_of(channel)(b"x" * size, timeout=PATIENCE) == b"x" * size


async def test_a_server_may_ask_who_calls(tmp_path: Path) -> None:
    async with serving(tmp_path, asks=True) as (authority, address):
        known, unknown = tls(authority, authority.signed("caller")), tls(authority)
        stranger = tls(authority, Authority(tmp_path, "another").signed("stranger"))
        async with Channel([address], QUICK, tls=known) as channel:
            assert await one_of(channel)(b"x", timeout=PATIENCE) == b"x"
        for nobody in (unknown, stranger):
            async with Channel([address], QUICK, tls=nobody) as channel:
                error = await error_of(one_of(channel)(b"x", timeout=PATIENCE))
                assert error.code() is StatusCode.UNAVAILABLE


async def test_a_server_of_another_authority_or_name_is_not_talked_with(tmp_path: Path) -> None:
    async with serving(tmp_path, asks=False, names="DNS:elsewhere.example") as (authority, address):
        for other in (tls(authority), tls(Authority(tmp_path, "another"), name="elsewhere.example")):
            async with Channel([address], QUICK, tls=other) as channel:
                error = await error_of(one_of(channel)(b"x", timeout=PATIENCE))
                assert error.code() is StatusCode.UNAVAILABLE
        async with Channel([address], QUICK, tls=tls(authority, name="elsewhere.example")) as channel:
            assert await one_of(channel)(b"x", timeout=PATIENCE) == b"x"


async def test_new_certificates_are_taken_by_connections_after_that(tmp_path: Path) -> None:
    async with serving(tmp_path, asks=True) as (authority, address):
        first, second = authority.signed("first"), authority.signed("second")
        made: list[Path] = []
        current = first

        def context() -> ssl.SSLContext:
            made.append(current[0])
            return tls(authority, current).context()

        async with Channel([address], QUICK, tls=Tls(context)) as channel:
            await one_of(channel)(b"x", timeout=PATIENCE)
            current = second
            calls = [one_of(channel)(b"x", timeout=PATIENCE) for _ in range(10)]
            channel.renew()
            assert {await call for call in calls} == {b"x"}
            assert await one_of(channel)(b"x", timeout=PATIENCE) == b"x"
        assert made == [first[0], second[0]]


@pytest.mark.parametrize("contents", [b"", b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_an_error(contents: bytes) -> None:
    with pytest.raises(ssl.SSLError):
        client_context(contents, None, None)
    with pytest.raises(ssl.SSLError):
        client_context(None, contents, contents)
