"""Connections that fail, as clients and the command line report them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner, Result

from intent_serving_client import AsyncIntentClient, IntentClient, Unavailable
from intent_serving_client.connection_faults import ConnectionFault, connection_fault
from intentctl.__main__ import app
from intentctl.trial_certificates import trial_certificates
from serving.client import ChannelOptions
from tests.builders import refusing_address
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, start, transports
from tests.end_to_end.transports.certificates import Authority

pytestmark = pytest.mark.end_to_end

UNAVAILABLE = 3


class Papers:
    """Trial certificates, and an authority that signs expired ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, days in (("ours", 1.0), ("theirs", 1.0)):
            (folder / name).mkdir()
            for file, content in trial_certificates((), days).items():
                (folder / name / file).write_bytes(content)
        self.past = Authority(folder, "past")
        self.expired = self.past.expired("server")

    def of(self, whose: str, *files: str) -> tuple[Path, ...]:
        return tuple(self.folder / whose / file for file in files)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module", params=transports())
def services(
    request: pytest.FixtureRequest, papers: Papers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Services with each kind of encryption, by its name."""
    logs = tmp_path_factory.mktemp("logs")
    pair = (
        "--tls-certificate",
        str(papers.of("ours", "frontend.crt")[0]),
        "--tls-key",
        str(papers.of("ours", "frontend.key")[0]),
    )
    mutual = (*pair, "--tls-client-authority", str(papers.of("ours", "authority.crt")[0]))
    expired = ("--tls-certificate", str(papers.expired[0]), "--tls-key", str(papers.expired[1]))
    kinds = {"plain": (), "tls": pair, "mutual": mutual, "expired": expired}
    started: dict[str, Service] = {}
    try:
        for kind, flags in kinds.items():
            started[kind] = start("frontend", ROOT / "models", logs, *flags, transport=request.param)
        for service in started.values():
            service.wait_until_logged("listening")
        yield {kind: service.address for kind, service in started.items()}
    finally:
        for service in started.values():
            service.kill()


def option(papers: Papers, whose: str = "ours", caller: str = "", name: str | None = None) -> ChannelOptions:
    certificate, key = papers.of(caller, "caller.crt", "caller.key") if caller else (None, None)
    (authority,) = papers.of(whose, "authority.crt")
    return ChannelOptions(tls_authority=authority, tls_certificate=certificate, tls_key=key, server_name=name)


def test_each_fault_is_told_with_what_to_do(services: dict[str, str], papers: Papers) -> None:
    expired = ChannelOptions(tls_authority=papers.past.certificate)
    for kind, options, told in (
        ("plain", ChannelOptions(), ""),
        ("tls", option(papers), ""),
        ("mutual", option(papers, caller="ours"), ""),
        ("tls", ChannelOptions(), "it speaks TLS, and you do not; give tls_authority"),
        ("mutual", ChannelOptions(), "it speaks TLS, and you do not; give tls_authority"),
        ("plain", option(papers), "it speaks no TLS; leave out tls"),
        ("plain", ChannelOptions(tls=True), "it speaks no TLS; leave out tls"),
        (
            "tls",
            ChannelOptions(tls=True),
            "of an unknown authority; give the authority's certificate with tls_authority",
        ),
        ("tls", option(papers, "theirs"), "is not signed by the authority in tls_authority"),
        (
            "tls",
            option(papers, name="elsewhere.example"),
            "is for frontend, localhost, 127.0.0.1, ::1, and not for elsewhere.example",
        ),
        ("expired", expired, "its certificate has expired"),
        ("mutual", option(papers), "requires a certificate of its callers; give yours with tls_certificate"),
        ("mutual", option(papers, caller="theirs"), "it refuses your tls_certificate"),
    ):
        fault, is_listening = connection_fault(services[kind], options)
        assert is_listening
        assert told in fault if told else fault == "", (kind, told, fault)


def test_an_address_at_which_no_service_answers_is_told_with_what_to_do(services: dict[str, str]) -> None:
    for address, told in (
        (refusing_address(), "nothing listens on port "),
        ("no-such-host.invalid:1", "the name no-such-host.invalid cannot be resolved; check how it is written"),
    ):
        fault, is_listening = connection_fault(address, ChannelOptions())
        assert (told in fault, is_listening) == (True, False), fault
    assert connection_fault("unix:/run/no-such-socket", ChannelOptions()) == ConnectionFault()


def test_a_server_of_something_else_is_told() -> None:
    """An HTTP/1.1 server answers whatever comes with a line of text."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=_refuse_forever, args=(server,), daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for options in (ChannelOptions(), ChannelOptions(tls=True)):
            assert "it does not speak gRPC; give the port" in connection_fault(address, options).text


def _refuse_forever(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")


def test_clients_tell_address_and_fault(services: dict[str, str], papers: Papers) -> None:
    for address, options in (
        (services["tls"], ChannelOptions()),
        (services["plain"], option(papers)),
        (services["tls"], option(papers, "theirs")),
        (services["tls"], option(papers, name="elsewhere.example")),
        (refusing_address(), ChannelOptions()),
        ("no-such-host.invalid:1", ChannelOptions()),
    ):
        told = f"no answer from {address}: {connection_fault(address, options).text}"
        with IntentClient(address, options=options) as client, pytest.raises(Unavailable, match=re.escape(told)):
            client.predict("clinc150", "x")
        for fast in (False, True):
            with pytest.raises(Unavailable, match=re.escape(told)):
                asyncio.run(_predict(address, replace(options, fast=fast)))


def test_the_address_of_a_service_of_another_kind_is_told(services: dict[str, str], tmp_path: Path) -> None:
    predictor = start("predictor", ROOT / "models", tmp_path)
    try:
        predictor.wait_until_logged("listening")
        told = intentctl("predict", "clinc150", "x", "--frontend", predictor.address)
        assert "may be the address of a predictor" in told.output
        assert "the frontend's address, with port 51001 by default" in told.output
    finally:
        predictor.kill()
    told = intentctl("models", "--resident", "--predictor", services["plain"])
    assert "the predictor's address, with port 51002 by default" in told.output


async def _predict(address: str, options: ChannelOptions) -> None:
    async with AsyncIntentClient(address, options=options) as client:
        await client.predict("clinc150", "x")


COMMANDS = (
    ("predict", "clinc150", "x", "--frontend"),
    ("explain", "clinc150", "x", "--frontend"),
    ("models", "--frontend"),
    ("models", "--resident", "--predictor"),
    ("history", "clinc150", "--frontend"),
    ("doctor", "clinc150", "--predictor"),
)


def test_every_command_tells_them(services: dict[str, str]) -> None:
    for command in COMMANDS:
        ran = intentctl(*command, services["tls"])
        assert ran.exit_code == UNAVAILABLE, ran.output
        assert f"no answer from {services['tls']}: it speaks TLS, and you do not; give --tls-authority" in ran.output


def intentctl(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})
