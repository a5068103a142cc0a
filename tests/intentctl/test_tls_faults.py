"""Connections that fail for their encryption, as the command line reports them; and the recipe of the documents."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner, Result

from intent_serving_client.channels import open_channel
from intentctl.__main__ import app
from intentctl.tls_faults import tls_fault
from intentctl.trial_certificates import SERVICES, trial_certificates
from serving.client import ChannelOptions
from tests.builders import SERVING, free_port, refusing_address
from tests.conftest import ROOT
from tests.end_to_end.processes import START_SECONDS, Service, start, transports
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
        ("tls", ChannelOptions(), "it speaks TLS, and you do not; give --tls-authority"),
        ("mutual", ChannelOptions(), "it speaks TLS, and you do not; give --tls-authority"),
        ("plain", option(papers), "it speaks no TLS; leave out --tls"),
        ("plain", ChannelOptions(tls=True), "it speaks no TLS; leave out --tls"),
        (
            "tls",
            ChannelOptions(tls=True),
            "of an unknown authority; give the authority's certificate with --tls-authority",
        ),
        ("tls", option(papers, "theirs"), "is not signed by the authority in --tls-authority"),
        (
            "tls",
            option(papers, name="elsewhere.example"),
            "is for frontend, localhost, 127.0.0.1, ::1, and not for elsewhere.example",
        ),
        ("expired", expired, "its certificate has expired"),
        ("mutual", option(papers), "requires a certificate of its callers; give yours with --tls-certificate"),
        ("mutual", option(papers, caller="theirs"), "it refuses your --tls-certificate"),
    ):
        fault = tls_fault(services[kind], options)
        assert told in fault if told else fault == "", (kind, told, fault)


def test_where_nothing_answers_no_fault_of_tls_is_told(papers: Papers) -> None:
    assert tls_fault(refusing_address(), option(papers)) == ""
    assert tls_fault("unix:/run/no-such-socket", ChannelOptions()) == ""
    assert tls_fault("no-such-host.invalid:1", ChannelOptions()) == ""


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
        assert f"no answer from {services['tls']}: it speaks TLS, and you do not" in ran.output


def intentctl(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_trial_certificates_are_short_lived_and_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "certificates"
    made = intentctl("access", "trial-certificates", str(folder), "--name", "intent.example", "--name", "10.0.0.7")
    assert made.exit_code == 0, made.output
    assert sorted(map(Path, made.stdout.split())) == sorted(folder.iterdir())
    assert not list(folder.glob("authority.key"))
    for key in folder.glob("*.key"):
        assert key.stat().st_mode & 0o777 == 0o600
    authority = x509.load_pem_x509_certificate((folder / "authority.crt").read_bytes())
    for service in SERVICES:
        certificate = x509.load_pem_x509_certificate((folder / f"{service}.crt").read_bytes())
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [service, "localhost", "intent.example"]
        assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1", "10.0.0.7"]
        assert certificate.not_valid_after_utc < datetime.now(UTC) + timedelta(days=8)
    ssl.create_default_context(cafile=folder / "authority.crt")


def test_certificates_are_replaced_on_request_only(tmp_path: Path) -> None:
    assert intentctl("access", "trial-certificates", str(tmp_path)).exit_code == 0
    former = (tmp_path / "authority.crt").read_bytes()
    again = intentctl("access", "trial-certificates", str(tmp_path))
    assert (again.exit_code, "give --replace" in again.output) == (1, True)
    assert (tmp_path / "authority.crt").read_bytes() == former
    assert intentctl("access", "trial-certificates", str(tmp_path), "--replace").exit_code == 0
    assert (tmp_path / "authority.crt").read_bytes() != former
    wrong = intentctl("access", "trial-certificates", str(tmp_path / "x"), "--name", "größe")
    assert (wrong.exit_code, (tmp_path / "x").exists()) == (2, False)


def test_the_recipe_of_the_documents_works_as_it_is_printed(tmp_path: Path) -> None:
    """The block below "Trying it" in docs/tls.md, with ports of this test, from certificates to an answer."""
    (section,) = re.findall(
        r"^## Trying it\n(.*?)^## ", (ROOT / "docs" / "tls.md").read_text(), re.DOTALL | re.MULTILINE
    )
    lines = [line.strip() for line in section.replace("\\\n", " ").splitlines() if line.startswith("    ")]
    make, *services, predict = lines
    assert len(services) == 2
    ports = {"51001": str(free_port()), "51002": str(free_port())}
    running: list[subprocess.Popen[bytes]] = []

    def command_of(line: str) -> list[str]:
        line = re.sub(r"\b5100[12]\b", lambda port: ports[port[0]], line.removesuffix(" &"))
        program, *arguments = line.split('"')[0].split() + line.split('"')[1:2] + "".join(line.split('"')[2:]).split()
        module = ["intentctl"] if program == "intentctl" else []
        flags = arguments[1:] if program == "python" else arguments
        return [sys.executable, "-m", *module, *flags]

    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    environment.pop("MODEL_DIR", None)
    (tmp_path / "models").symlink_to(ROOT / "models")
    try:
        subprocess.run(command_of(make), cwd=tmp_path, env=environment, check=True, timeout=START_SECONDS)
        with (tmp_path / "log").open("wb") as log:
            running += [
                subprocess.Popen(command_of(line), cwd=tmp_path, env=environment, stderr=log) for line in services
            ]
            folder = tmp_path / "certificates"
            options = ChannelOptions(tls_authority=folder / "authority.crt")
            wait_until_serving(f"localhost:{ports['51001']}", options)
            asked = subprocess.run(
                command_of(predict),
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                timeout=START_SECONDS,
                check=False,
            )
        assert (asked.returncode, b"timer" in asked.stdout) == (0, True), asked.stderr
    finally:
        for process in running:
            process.kill()
            process.wait()


def wait_until_serving(address: str, options: ChannelOptions) -> None:
    with open_channel(address, options) as channel:
        # The published type stubs of the health service omit Watch.
        health: Any = health_pb2_grpc.HealthStub(channel)
        for update in health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=START_SECONDS):
            if update.status == SERVING:
                return
