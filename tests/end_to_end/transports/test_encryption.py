"""TLS, and certificates of callers, on every transport."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.builders import PATIENCE
from tests.end_to_end.processes import Service, grpcurl, transports
from tests.end_to_end.transports.callers import Caller, SyncCaller, Tls, guarded
from tests.end_to_end.transports.certificates import Authority
from tests.end_to_end.transports.orders import Metadata, Order
from tests.end_to_end.transports.running import running

REFUSED_WITHIN = 10.0
"""Seconds for which a caller tries to connect; gRPC itself would continue until the deadline."""


@dataclass(frozen=True)
class Papers:
    """Authorities, and certificates that one of them signed."""

    authority: Authority
    stranger: Authority
    server: tuple[Path, Path]
    caller: tuple[Path, Path]
    named: tuple[Path, Path]
    """Certificate and key of a caller with several names."""
    expired: tuple[Path, Path]


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder, "authority")
    return Papers(
        authority,
        Authority(folder, "stranger"),
        authority.signed("server"),
        authority.signed("caller"),
        authority.signed("named", "DNS:router.example,DNS:x;DNS=admin.example,URI:spiffe://example/router,IP:10.0.0.1"),
        authority.expired("expired"),
    )


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
    """A server that also asks callers for a certificate."""
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
    # The server survives.
    answer = SyncCaller().call(mutual.address, "Unary", Order(text="a"), tls=known_as(papers, papers.caller))
    assert answer.code == "OK"


def test_callers_whose_certificate_has_expired_are_refused(mutual: Service, papers: Papers, caller: Caller) -> None:
    tls = known_as(papers, papers.expired)

    assert caller.call(mutual.address, "Unary", Order(), tls=tls, seconds=REFUSED_WITHIN).code == "UNAVAILABLE"
    assert names_of(mutual, known_as(papers, papers.caller)) == CALLER_NAMES


def names_of(service: Service, tls: Tls | None, metadata: Metadata = ()) -> tuple[str, ...]:
    """Return the names by which the service knows the caller, both directly and behind the boundary."""
    answers = [
        SyncCaller().call(service.address, method, Order(), tls=tls, metadata=metadata)
        for method in ("Unary", guarded("Unary"))
    ]
    assert [answer.code for answer in answers] == ["OK", "OK"]
    first, second = (answer.echoes[0].names for answer in answers)
    assert first == second
    return first


CALLER_NAMES = ("caller", "localhost")
FORGED = 'Hash=0;Cert="{}";Subject="CN=admin";URI=spiffe://example/admin;DNS=admin.example'


def forged(papers: Papers) -> Metadata:
    """Return the headers of a caller that poses as another, whose certificate is available to everyone."""
    return (("x-forwarded-client-cert", FORGED.format(quote(papers.named[0].read_text()))),)


def test_callers_are_known_by_the_names_of_their_certificates(mutual: Service, papers: Papers) -> None:
    assert names_of(mutual, known_as(papers, papers.caller)) == CALLER_NAMES
    # A name that is written to look like two names is one.
    names = ("named", "router.example", "x;DNS=admin.example", "spiffe://example/router")
    assert names_of(mutual, known_as(papers, papers.named)) == names


def test_nobody_takes_the_name_of_another(mutual: Service, papers: Papers) -> None:
    assert names_of(mutual, known_as(papers, papers.caller), forged(papers)) == CALLER_NAMES


def test_without_certificates_of_callers_there_are_no_names(one_sided: Service, papers: Papers) -> None:
    assert names_of(one_sided, anonymous(papers.authority), forged(papers)) == ()
    assert names_of(one_sided, known_as(papers, papers.caller), forged(papers)) == ()


def test_without_tls_there_are_no_names(host: Service, papers: Papers) -> None:
    assert names_of(host, None, forged(papers)) == ()


@pytest.mark.parametrize(("version", "is_taken"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
def test_tls_begins_with_1_2(one_sided: Service, papers: Papers, version: str, *, is_taken: bool) -> None:
    command = ["openssl", "s_client", "-connect", one_sided.address, "-CAfile", str(papers.authority.certificate)]
    # With these flags, the client accepts more than by default.
    command += [version, "-cipher", "ALL:@SECLEVEL=0", "-alpn", "h2", "-verify_return_error"]
    run = subprocess.run(command, input=b"", capture_output=True, timeout=PATIENCE, check=False)

    if is_taken:
        assert b"ALPN protocol: h2" in run.stdout, run.stderr
    else:
        # The server sends an alert or hangs up; the client would have continued.
        assert b"alert protocol version" in run.stderr or b"unexpected eof" in run.stderr


def test_grpcurl_speaks_tls(mutual: Service, papers: Papers) -> None:
    certificate, key = papers.caller
    files = ("-cacert", str(papers.authority.certificate), "-cert", str(certificate), "-key", str(key))
    command = [grpcurl(), *files, mutual.address, "grpc.health.v1.Health/Check"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert "SERVING" in answer.stdout, answer.stderr
