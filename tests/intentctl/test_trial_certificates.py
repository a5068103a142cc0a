"""Trial certificates, and the recipe of the documents that uses them."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner, Result

from intent_serving_client.channels import open_channel
from intentctl.__main__ import app
from intentctl.trial_certificates import SERVICES
from serving.client import ChannelOptions
from tests.builders import SERVING, free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import START_SECONDS

pytestmark = pytest.mark.end_to_end


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
