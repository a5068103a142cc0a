"""TLS, and certificates of callers, on every transport."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.builders import PATIENCE
from tests.end_to_end.processes import Service, grpcurl, transports
from tests.end_to_end.transports.callers import Caller, SyncCaller, Tls, guarded
from tests.end_to_end.transports.certificates import Authority
from tests.end_to_end.transports.orders import Order
from tests.end_to_end.transports.running import running

pytestmark = pytest.mark.end_to_end

REFUSED_WITHIN = 10.0
"""Seconds a caller tries to connect; gRPC itself would go on until the deadline."""


@dataclass(frozen=True)
class Papers:
    """Who is known to whom."""

    authority: Authority
    stranger: Authority
    server: tuple[Path, Path]
    caller: tuple[Path, Path]


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder, "authority")
    return Papers(authority, Authority(folder, "stranger"), authority.signed("server"), authority.signed("caller"))


@pytest.fixture(scope="module", params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def encrypted(transport: str, papers: Papers, folder: Path, *flags: str) -> AbstractContextManager[Service]:
    certificate, key = papers.server
    return running(folder, transport, "--tls-certificate", str(certificate), "--tls-key", str(key), *flags)


@pytest.fixture(scope="module")
def one_sided(transport: str, papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server with a certificate."""
    with encrypted(transport, papers, tmp_path_factory.mktemp("one-sided")) as service:
        yield service


@pytest.fixture(scope="module")
def mutual(transport: str, papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that asks callers for one too."""
    flags = ("--tls-client-authority", str(papers.authority.certificate))
    with encrypted(transport, papers, tmp_path_factory.mktemp("mutual"), *flags) as service:
        yield service


def anonymous(authority: Authority) -> Tls:
    return Tls(authority.certificate.read_bytes())


def known_as(papers: Papers, certificate: tuple[Path, Path]) -> Tls:
    return Tls(papers.authority.certificate.read_bytes(), *(path.read_bytes() for path in certificate))


@pytest.mark.parametrize("method", ["Unary", "Both", guarded("Unary")])
def test_calls_go_encrypted(one_sided: Service, papers: Papers, caller: Caller, method: str) -> None:
    answer = caller.call(one_sided.address, method, Order(text="secret"), tls=anonymous(papers.authority))

    assert (answer.code, [echo.text for echo in answer.echoes]) == ("OK", ["secret"])


def test_the_server_chooses_http_2(one_sided: Service, papers: Papers) -> None:
    context = ssl.create_default_context(cafile=papers.authority.certificate)
    context.set_alpn_protocols(["http/1.1", "h2"])
    host, _, port = one_sided.address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
    ):
        assert secured.selected_alpn_protocol() == "h2"


def test_calls_that_are_not_encrypted_are_refused(one_sided: Service, caller: Caller) -> None:
    assert caller.call(one_sided.address, "Unary", Order(), seconds=REFUSED_WITHIN).code == "UNAVAILABLE"


def test_a_caller_that_does_not_know_the_authority_refuses(one_sided: Service, papers: Papers, caller: Caller) -> None:
    tls = anonymous(papers.stranger)

    assert caller.call(one_sided.address, "Unary", Order(), tls=tls, seconds=REFUSED_WITHIN).code == "UNAVAILABLE"


@pytest.mark.parametrize("method", ["Unary", "Both", guarded("Unary")])
def test_callers_who_are_known_are_served(mutual: Service, papers: Papers, caller: Caller, method: str) -> None:
    answer = caller.call(mutual.address, method, Order(text="secret"), tls=known_as(papers, papers.caller))

    assert (answer.code, [echo.text for echo in answer.echoes]) == ("OK", ["secret"])


def test_callers_without_a_certificate_are_refused(mutual: Service, papers: Papers, caller: Caller) -> None:
    tls = anonymous(papers.authority)

    assert caller.call(mutual.address, "Unary", Order(), tls=tls, seconds=REFUSED_WITHIN).code == "UNAVAILABLE"


def test_callers_of_a_stranger_are_refused(mutual: Service, papers: Papers, caller: Caller) -> None:
    tls = known_as(papers, papers.stranger.signed("caller"))

    assert caller.call(mutual.address, "Unary", Order(), tls=tls, seconds=REFUSED_WITHIN).code == "UNAVAILABLE"
    # The server lives.
    answer = SyncCaller().call(mutual.address, "Unary", Order(text="a"), tls=known_as(papers, papers.caller))
    assert answer.code == "OK"


def test_grpcurl_speaks_tls(mutual: Service, papers: Papers) -> None:
    certificate, key = papers.caller
    files = ("-cacert", str(papers.authority.certificate), "-cert", str(certificate), "-key", str(key))
    command = [grpcurl(), *files, mutual.address, "grpc.health.v1.Health/Check"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "SERVING" in answer.stdout, answer.stderr
