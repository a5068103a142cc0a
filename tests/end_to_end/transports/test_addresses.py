"""IPv6 wherever a host is taken, by services and by clients."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client import AsyncIntentClient, IntentClient
from serving.health_check import health_of
from tests.builders import PATIENCE, free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, grpcurl, start, transports

MODEL, DOCUMENT, LABEL = "clinc150", "make a 10 minute timer", "timer"


@pytest.fixture(autouse=True)
def _has_ipv6() -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")


def serving(host: str, logs: Path, transport: str, *flags: str) -> Iterator[Service]:
    service = start("model_service", ROOT / "models", logs, "--host", host, *flags, transport=transport)
    service.address = f"[::1]:{service.address.rpartition(':')[2]}"
    try:
        service.wait_until_serving()
        yield service
    finally:
        service.kill()


@pytest.fixture(scope="module", params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def asked(address: str) -> str:
    async with AsyncIntentClient(address) as client:
        return (await client.predict(MODEL, DOCUMENT)).label


@pytest.mark.parametrize("host", ["::1", "[::1]", "::"])
def test_every_port_of_a_service_is_reached_by_ipv6(host: str, transport: str, tmp_path: Path) -> None:
    metrics, health = free_port(), free_port()
    ports = ("--metrics-port", str(metrics), "--health-port", str(health))
    for service in serving(host, tmp_path, transport, *ports):
        with IntentClient(service.address) as client:
            assert client.predict(MODEL, DOCUMENT).label == LABEL
        assert asyncio.run(asked(service.address)) == LABEL
        assert health_of(f"[::1]:{health}", "", PATIENCE) == "SERVING"
        with urllib.request.urlopen(f"http://[::1]:{metrics}/metrics", timeout=PATIENCE) as answer:
            assert b"intent_" in answer.read()
        question = json.dumps({"runId": MODEL, "document": DOCUMENT})
        command = [grpcurl(), "-plaintext", "-d", question, service.address, "prediction.PredictionService/Predict"]
        ran = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE)
        assert f'"{LABEL}"' in json.loads(ran.stdout)["response"]
        if transport == "http2":
            with urllib.request.urlopen(f"http://{service.address}/v2/health/ready", timeout=PATIENCE) as answer:
                assert answer.status == 200
        if host == "::":
            # The address stands for those of IPv4 too.
            port = service.address.rpartition(":")[2]
            with IntentClient(f"127.0.0.1:{port}") as client:
                assert client.predict(MODEL, DOCUMENT).label == LABEL
            assert health_of(f"127.0.0.1:{health}", "", PATIENCE) == "SERVING"
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=PATIENCE) as answer:
                assert b"intent_" in answer.read()
        ready = service.wait_until_logged("ready")
        assert ready["address"] == f"[{host.strip('[]')}]:{service.address.rpartition(':')[2]}"


def test_workers_listen_on_ipv6(transport: str, tmp_path: Path) -> None:
    ports = ("--metrics-port", str(free_port()), "--health-port", str(free_port()))
    for service in serving("::1", tmp_path, transport, "--workers", "2", *ports):
        with IntentClient(service.address) as client:
            assert client.predict(MODEL, DOCUMENT).label == LABEL


@pytest.mark.parametrize("arguments", [("--host", "::1"), ("--host", "[::1]", "--single-process")])
def test_intentctl_up_serves_on_ipv6(arguments: tuple[str, ...]) -> None:
    ports = ("--port", str(free_port()), "--predictor-port", str(free_port()))
    command = [sys.executable, "-m", "intentctl", "up", "--check", *arguments, *ports]
    ran = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (
        f"frontend and predictor [::1]:{ports[1]}" in ran.stdout.decode() or f"[::1]:{ports[3]}" in ran.stdout.decode()
    )
    assert b"timer (score" in ran.stdout


@pytest.mark.parametrize("host", ["http://localhost", "localhost:51001", "unix:/run/intent.sock"])
def test_intentctl_up_refuses_what_is_no_host(host: str) -> None:
    command = [sys.executable, "-m", "intentctl", "up", "--host", host]
    ran = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=PATIENCE, check=False)
    assert ran.returncode == 2
    assert b"Invalid value" in ran.stderr
