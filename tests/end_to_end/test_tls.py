"""The product behind TLS: callers, frontend and predictor each with a certificate, over both transports."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import Request, urlopen

import grpc
import pytest

from serving.client import AsyncIntentClient, ChannelOptions, IntentClient
from serving.domain.errors import ServingError, Unavailable
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.wire.residency_client import ask_residency
from tests.builders import PATIENCE, free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, grpcurl, start, transports
from tests.end_to_end.transports.certificates import Authority

MODELS = ROOT / "models"
MODEL, DOCUMENT, LABEL = "clinc150", "make a 10 minute timer", "timer"

NAME = "localhost"
"""Name of the predictor in its certificate."""

Pair = tuple[Path, Path]


@dataclass
class Secured:
    """Both services, each of which asks every caller for a certificate."""

    authority: Authority
    stranger: Authority
    transport: str
    frontend: Service
    predictor: Service
    router: Pair
    """Certificate and key of the frontend for its calls to the predictor."""
    known: Path
    """Authorities of the callers that the predictor accepts."""
    health_port: int
    health_file: Path

    def options(self, pair: Pair) -> ChannelOptions:
        return ChannelOptions(tls_authority=self.authority.certificate, tls_certificate=pair[0], tls_key=pair[1])

    def flags(self, pair: Pair) -> list[str]:
        files = ("--tls-authority", str(self.authority.certificate), "--tls-certificate", str(pair[0]))
        return [*files, "--tls-key", str(pair[1])]


@pytest.fixture(scope="module", params=transports())
def secured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
    known, health_port = folder / "known.pem", free_port()
    known.write_bytes(authority.certificate.read_bytes())
    # The certificate has the name alone: the frontend looks it up, dials the number, and must verify the name.
    engine = authority.signed("predictor", f"DNS:{NAME}")
    router = authority.signed("router")
    started: list[Service] = []
    try:
        predictor = start(
            "predictor", MODELS, folder, *server(engine, known), "--connection-age-seconds", "1",
            transport=request.param,
        )  # fmt: skip
        started.append(predictor)
        port = predictor.address.rpartition(":")[2]
        frontend = start(
            "frontend", MODELS, folder, *server(authority.signed("frontend"), authority.certificate),
            "--routes", f"intent-classification=predictor://dns:///{NAME}:{port}",
            "--predictor-tls-authority", str(authority.certificate),
            "--predictor-tls-certificate", str(router[0]), "--predictor-tls-key", str(router[1]),
            "--health-port", str(health_port), "--health-file", str(folder / "health"), transport=request.param,
        )  # fmt: skip
        started.append(frontend)
        frontend.wait_until_logged("ready")
        yield Secured(
            authority, stranger, request.param, frontend, predictor, router, known, health_port, folder / "health"
        )
    finally:
        for service in reversed(started):
            service.kill()


def server(pair: Pair, callers: Path) -> tuple[str, ...]:
    files = ("--tls-certificate", str(pair[0]), "--tls-key", str(pair[1]))
    return (*files, "--tls-client-authority", str(callers))


@pytest.fixture(scope="module")
def caller(secured: Secured) -> Pair:
    return secured.authority.signed("caller")


async def test_clients_with_a_certificate_are_answered(secured: Secured, caller: Pair) -> None:
    options = secured.options(caller)
    with IntentClient(secured.frontend.address, options=options) as client:
        assert client.predict(MODEL, DOCUMENT).label == LABEL
    async with AsyncIntentClient(secured.frontend.address, options=options) as other:
        assert (await other.predict(MODEL, DOCUMENT)).label == LABEL


@pytest.mark.parametrize("who", ["nobody", "a stranger", "one whose time is over", "one without TLS"])
@pytest.mark.parametrize("service", ["frontend", "predictor"])
def test_others_are_refused_and_callers_do_not_notice(secured: Secured, caller: Pair, who: str, service: str) -> None:
    authority = secured.authority.certificate
    if who == "one without TLS":
        options = ChannelOptions()
    elif who == "nobody":
        options = ChannelOptions(tls_authority=authority, server_name=NAME)
    else:
        pair = secured.stranger.signed("caller") if who == "a stranger" else secured.authority.expired("late")
        options = replace(secured.options(pair), server_name=NAME)
    address: str = getattr(secured, service).address
    with IntentClient(secured.frontend.address, options=secured.options(caller)) as client:
        assert client.predict(MODEL, DOCUMENT).label == LABEL
        with IntentClient(address, options=options) as refused, pytest.raises(Unavailable):
            refused.predict(MODEL, DOCUMENT)
        assert client.predict(MODEL, DOCUMENT).label == LABEL


def test_grpcurl_with_a_certificate_is_answered(secured: Secured, caller: Pair) -> None:
    files = ("-cacert", secured.authority.certificate, "-cert", caller[0], "-key", caller[1])
    question = json.dumps({"runId": MODEL, "document": DOCUMENT})
    command = [grpcurl(), *map(str, files), "-d", question, secured.frontend.address]
    run = subprocess.run(
        [*command, "prediction.PredictionService/Predict"], capture_output=True, timeout=PATIENCE, check=False
    )

    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["label"] == LABEL


def intentctl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "intentctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, check=False)


def test_the_command_line_with_a_certificate_is_answered(secured: Secured, caller: Pair) -> None:
    asked = ("predict", MODEL, DOCUMENT, "--address", secured.frontend.address)
    answered = intentctl(*asked, *secured.flags(caller), "--json")
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)[0]["label"] == LABEL

    resident = intentctl(
        "models", "--resident", "--predictor", secured.predictor.address,
        *secured.flags(caller), "--tls-server-name", NAME, "--json",
    )  # fmt: skip
    assert [model["id"] for model in json.loads(resident.stdout)["models"]] == [MODEL], resident.stderr

    plain = intentctl(*asked, "--timeout", "5")
    assert (plain.returncode, "--tls-authority" in plain.stderr) == (3, True), plain.stderr
    distrusted = intentctl(*asked, "--tls", "--timeout", "5")
    wrong = "its certificate is of an unknown authority"
    assert (distrusted.returncode, wrong in distrusted.stderr) == (3, True), distrusted.stderr


def test_plain_http_is_answered_over_tls(secured: Secured, caller: Pair) -> None:
    if secured.transport != "http2":
        pytest.skip("only the transport http2 serves the REST API")
    context = ssl.create_default_context(cafile=secured.authority.certificate)
    context.load_cert_chain(*caller)
    tensor = {"name": "document", "datatype": "BYTES", "shape": [1], "data": [DOCUMENT]}
    url = f"https://{secured.frontend.address}/v2/models/{MODEL}/infer"
    request = Request(url, json.dumps({"inputs": [tensor]}).encode())
    with urlopen(request, timeout=PATIENCE, context=context) as answer:  # noqa: S310 - it is https
        outputs = json.load(answer)["outputs"]

    assert outputs[0]["data"] == [LABEL]


def health(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.health_check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT, check=False)


def test_the_health_check_of_containers_needs_no_certificate(secured: Secured) -> None:
    check = [ROOT / "deploy" / "images" / "health-check", secured.health_file]
    assert subprocess.run(check, timeout=PATIENCE, check=False).returncode == 0


def test_probes_ask_without_tls_on_a_port_of_their_own(secured: Secured, caller: Pair) -> None:
    port = f"127.0.0.1:{secured.health_port}"
    assert health(port).returncode == 0
    assert health(port, "--service", "liveness").returncode == 0
    assert health(secured.frontend.address, *secured.flags(caller)).returncode == 0
    assert health(secured.frontend.address, "--timeout", "2").returncode == 1

    # The port serves nothing else.
    with grpc.insecure_channel(port) as channel, pytest.raises(grpc.RpcError) as refusal:
        pb_grpc.PredictionServiceStub(channel).Predict(pb.PredictRequest(), timeout=PATIENCE)
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_new_certificate_of_the_frontend_reaches_the_predictor(secured: Secured, caller: Pair) -> None:
    """Change the frontend's authority and certificate under load. Last test: callers of the former are locked out."""
    former, other = secured.authority, Authority(secured.known.parent, "other")
    failed: list[str] = []
    answered = 0
    async with AsyncIntentClient(secured.frontend.address, options=secured.options(caller)) as client:

        async def ask_until(logged: Service, event: str, times: int) -> None:
            nonlocal answered
            deadline = time.monotonic() + PATIENCE
            while len([line for line in logged.events() if line["event"] == event]) < times:
                assert time.monotonic() < deadline, event
                await ask()

        async def ask() -> None:
            nonlocal answered
            try:
                await client.predict(MODEL, DOCUMENT)
                answered += 1
            except ServingError as error:
                failed.append(repr(error))
            await asyncio.sleep(0.01)

        secured.known.write_bytes(former.certificate.read_bytes() + other.certificate.read_bytes())
        await ask_until(secured.predictor, "certificate replaced", 1)
        for file, target in zip(other.signed("router"), secured.router, strict=True):
            shutil.copy(file, target)
        await ask_until(secured.frontend, "new connections replace the old ones", 1)
        secured.known.write_bytes(other.certificate.read_bytes())
        await ask_until(secured.predictor, "certificate replaced", 2)
        # The predictor ends connections after a second, and accepts new ones from the new authority alone.
        until = time.monotonic() + 3
        while time.monotonic() < until:
            await ask()

    assert failed == []
    assert answered > 100
    options = replace(secured.options(caller), server_name=NAME)
    with pytest.raises(Unavailable):
        ask_residency(secured.predictor.address, options=options)
