from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from intent_serving_client import AsyncIntentClient, IntentClient
from intent_serving_client.channels import ChannelOptions, check_options, open_async_channel, open_channel
from serving.domain.errors import InvalidConnection
from tests.builders import PATIENCE, a_prediction, hosted_frontend, publish, refusing_address
from tests.end_to_end.transports.certificates import Authority
from tests.fakes.backend import FakeBackend

KEY = "a-key-0123456789"
ONE, MANY = "/listener.Listener/One", "/listener.Listener/Many"


class Listener:
    """A service that keeps the metadata of its callers."""

    def __init__(self) -> None:
        self.told: list[list[tuple[str, str | bytes]]] = []

    async def one(self, request: bytes, context: Any) -> bytes:
        self._keep(context)
        return request

    async def many(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        self._keep(context)
        yield request
        yield request

    def _keep(self, context: Any) -> None:
        metadata = context.invocation_metadata()
        self.told.append(sorted((key, value) for key, value in metadata if key in ("authorization", "own")))


@pytest.fixture
async def listener() -> AsyncIterator[tuple[Listener, grpc.aio.Server]]:
    server, listener = grpc.aio.server(), Listener()
    handlers: Any = {
        "One": grpc.unary_unary_rpc_method_handler(listener.one),
        "Many": grpc.unary_stream_rpc_method_handler(listener.many),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("listener.Listener", handlers),))
    yield listener, server
    await server.stop(None)


async def call_each_way(address: str, options: ChannelOptions) -> None:
    """Make a call of each kind over each kind of channel."""
    await asyncio.to_thread(_call_blocking, address, options)
    for fast in (False, True):
        async with open_async_channel(address, replace(options, fast=fast)) as channel:
            one: Any = channel.unary_unary(ONE)
            many: Any = channel.unary_stream(MANY)
            assert await one(b"a", timeout=PATIENCE, metadata=(("own", "x"),)) == b"a"
            assert [answer async for answer in many(b"a", timeout=PATIENCE)] == [b"a", b"a"]


def _call_blocking(address: str, options: ChannelOptions) -> None:
    with open_channel(address, options) as channel:
        one: Any = channel.unary_unary(ONE)
        many: Any = channel.unary_stream(MANY)
        assert one(b"a", timeout=PATIENCE, metadata=(("own", "x"),)) == b"a"
        assert list(many(b"a", timeout=PATIENCE)) == [b"a", b"a"]


OWN, CREDENTIAL = ("own", "x"), ("authorization", f"Bearer {KEY}")


async def test_every_call_has_the_credential(listener: tuple[Listener, grpc.aio.Server]) -> None:
    service, server = listener
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    await call_each_way(f"127.0.0.1:{port}", ChannelOptions(credential=KEY))
    assert service.told == [[CREDENTIAL, OWN], [CREDENTIAL]] * 3

    service.told.clear()
    await call_each_way(f"127.0.0.1:{port}", ChannelOptions())
    assert service.told == [[OWN], []] * 3


async def test_every_call_over_tls_has_it_too(listener: tuple[Listener, grpc.aio.Server], tmp_path: Path) -> None:
    service, server = listener
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.signed("server", "DNS:elsewhere.example")
    caller = authority.signed("caller")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())], authority.certificate.read_bytes(), require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()

    options = ChannelOptions(
        tls_authority=authority.certificate,
        tls_certificate=caller[0],
        tls_key=caller[1],
        server_name="elsewhere.example",
        credential=KEY,
    )
    await call_each_way(f"127.0.0.1:{port}", options)
    assert service.told == [[CREDENTIAL, OWN], [CREDENTIAL]] * 3


def test_a_credential_is_not_shown() -> None:
    assert KEY not in repr(ChannelOptions(credential=KEY))


@pytest.mark.parametrize("credential", ["", "two words", "two\nlines", "schlüssel", "x" * 10_000])
def test_what_metadata_cannot_carry_is_refused_at_once(credential: str) -> None:
    options = ChannelOptions(credential=credential)
    for use in (lambda: check_options(options), lambda: open_channel("127.0.0.1:1", options)):
        with pytest.raises(InvalidConnection, match="one line of printable ASCII") as refused:
            use()
        assert not credential or credential not in str(refused.value)


def test_files_that_cannot_be_used_are_refused_at_once(tmp_path: Path) -> None:
    text, missing, empty = tmp_path / "text", tmp_path / "missing", tmp_path / "empty"
    text.write_text("hello")
    empty.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    authority = Authority(tmp_path, "authority")
    (certificate, key), (_, other) = authority.signed("caller"), authority.signed("other")
    for options, message in (
        (ChannelOptions(tls_authority=missing), f"{missing} cannot be read"),
        (ChannelOptions(tls_authority=text), f"{text} is not PEM; it must be the certificate of the authority"),
        (ChannelOptions(tls_authority=key), f"{key} holds no certificate; it must be the certificate of the authority"),
        (ChannelOptions(tls_authority=empty), f"{empty} holds no certificate"),
        (ChannelOptions(tls_certificate=key, tls_key=key), f"{key} holds no certificate; it must be the caller's own"),
        (ChannelOptions(tls_certificate=certificate, tls_key=certificate), f"{certificate} cannot be used; they must"),
        (ChannelOptions(tls_certificate=certificate, tls_key=other), f"{other} is not of the certificate"),
        (ChannelOptions(tls_certificate=text), "belong together"),
        (ChannelOptions(tls_key=text), "belong together"),
    ):
        with pytest.raises(InvalidConnection, match=message):
            open_channel("127.0.0.1:1", options)


@pytest.mark.parametrize("attempts", [-1, 0, 6])
def test_attempts_that_no_channel_makes_are_refused_at_once(attempts: int) -> None:
    options = ChannelOptions(attempts=attempts)
    for use in (check_options, lambda options: open_channel("127.0.0.1:1", options)):
        with pytest.raises(InvalidConnection, match="from 1 to 5"):
            use(options)


@pytest.mark.parametrize("missing", ["grpc_http2", "ngh2"])
async def test_without_the_extra_the_channel_is_grpcios_unless_the_fast_one_is_asked_for(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("grpc_http2", "intent_serving_client.fast"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)

    async with open_async_channel("127.0.0.1:1") as channel:
        assert type(channel).__module__.startswith("grpc.aio")
    with pytest.raises(InvalidConnection, match=r"intent-serving-client\[fast\]"):
        open_async_channel("127.0.0.1:1", ChannelOptions(fast=True))


async def test_a_proxy_in_the_environment_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own connections go to the address that is given, whether or not ``no_proxy`` names it."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{refusing_address()}")
    monkeypatch.setenv("no_proxy", "")
    publish(tmp_path, "a")
    async with hosted_frontend(tmp_path, FakeBackend(a_prediction)) as address:

        def ask() -> str:
            with IntentClient(address, timeout=PATIENCE) as client:
                return client.predict("a", "x").label

        assert await asyncio.to_thread(ask) == "x"
        async with AsyncIntentClient(address, timeout=PATIENCE) as client:
            assert (await client.predict("a", "x")).label == "x"
