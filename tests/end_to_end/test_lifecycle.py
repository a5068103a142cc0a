"""Start, loss of the other service, and stop."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.client import AsyncIntentClient, IntentClient, Prediction
from serving.domain.errors import DeadlineExceeded, ServingError, Unavailable
from serving.stubs import open_inference_pb2, open_inference_pb2_grpc
from tests.builders import free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import stack, start, transports

MODELS = ROOT / "models"


@pytest.fixture(params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def health_of(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60).status)


def test_the_frontend_is_not_serving_until_the_predictor_is(tmp_path: Path, transport: str) -> None:
    port = free_port()
    routes = f"intent-classification=predictor://127.0.0.1:{port}"
    frontend = start("frontend", MODELS, tmp_path, "--routes", routes, transport=transport)
    try:
        assert health_of(frontend.address) == health_pb2.HealthCheckResponse.NOT_SERVING

        predictor = start("predictor", MODELS, tmp_path, port=port, transport=transport)
        try:
            frontend.wait_until_serving()
            with IntentClient(frontend.address) as client:
                assert client.predict("clinc150", "make a 10 minute timer").label == "timer"
        finally:
            assert predictor.stop() == 0
    finally:
        assert frontend.stop() == 0


def test_a_predictor_that_is_gone_is_unavailable_and_found_again_when_it_is_back(
    tmp_path: Path, transport: str
) -> None:
    with (
        stack(MODELS, tmp_path, transport=transport) as both,
        IntentClient(both.frontend.address, timeout=20) as client,
    ):
        port = int(both.predictor.address.rsplit(":", 1)[1])
        client.predict("clinc150", "hello")
        both.predictor.stop(signal.SIGKILL)

        with pytest.raises(Unavailable, match="the predictor cannot be reached"):
            client.predict("clinc150", "hello")

        again = start("predictor", MODELS, tmp_path, port=port, transport=transport)
        try:
            again.wait_until_serving()
            assert answer_when_reached(client).label == "timer"
        finally:
            again.stop()


def test_a_predictor_that_hangs_costs_the_caller_its_deadline(tmp_path: Path, transport: str) -> None:
    with stack(MODELS, tmp_path, transport=transport) as both, IntentClient(both.frontend.address) as client:
        client.predict("clinc150", "hello")
        both.predictor.signal_all(signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded):
                client.predict("clinc150", "hello", timeout=0.5)
        finally:
            both.predictor.signal_all(signal.SIGCONT)

        assert client.predict("clinc150", "make a 10 minute timer").label == "timer"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_every_accepted_call_and_ends_with_zero(
    tmp_path: Path, transport: str, number: signal.Signals
) -> None:
    with stack(MODELS, tmp_path, frontend=("--drain-delay-seconds", "0"), transport=transport) as both:
        async with AsyncIntentClient(both.frontend.address, timeout=30) as client:
            calls = [asyncio.ensure_future(client.predict("clinc150", f"timer {i}")) for i in range(300)]
            await calls[0]
            both.frontend.process.send_signal(number)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)

        assert [outcome for outcome in outcomes if not isinstance(outcome, Prediction)] == []
        assert both.frontend.process.wait(30) == 0
        assert both.predictor.stop(number) == 0
        events = [event["event"] for event in both.frontend.events()]
        assert events.index("draining") < events.index("stopped")


def test_after_a_signal_health_says_not_serving_before_calls_are_refused(tmp_path: Path, transport: str) -> None:
    with (
        stack(MODELS, tmp_path, frontend=("--drain-delay-seconds", "30"), transport=transport) as both,
        grpc.insecure_channel(both.frontend.address) as channel,
        IntentClient(both.frontend.address) as client,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        updates = iter(stub.Watch(health_pb2.HealthCheckRequest(), timeout=60))
        assert next(updates).status == health_pb2.HealthCheckResponse.SERVING
        open_inference = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        question = open_inference_pb2.ServerReadyRequest()
        assert open_inference.ServerReady(question, timeout=30).ready

        both.frontend.process.send_signal(signal.SIGTERM)

        assert next(updates).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not open_inference.ServerReady(question, timeout=30).ready
        assert client.predict("clinc150", "make a 10 minute timer").label == "timer"
        both.frontend.process.send_signal(signal.SIGTERM)  # a second signal speeds up the stop
        assert both.frontend.process.wait(30) == 0
        with pytest.raises(ServingError):
            client.predict("clinc150", "hello", timeout=1)


def test_the_frontend_never_loads_torch_or_numpy() -> None:
    probe = "import sys, frontend.__main__, frontend.service; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", probe], check=False, cwd=ROOT).returncode == 0


@pytest.mark.parametrize("service", ["frontend", "predictor"])
def test_wrong_settings_stop_the_start_with_one_message_that_names_every_fault(service: str) -> None:
    flags = ["--port", "99999", "--model-dir", "/no/such/folder", "--log-level", "loud"]
    run = subprocess.run([sys.executable, "-m", service, *flags], capture_output=True, text=True, check=False, cwd=ROOT)

    assert run.returncode == 2
    assert all(flag in run.stderr for flag in ("--port", "--model-dir", "--log-level"))
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("service", ["frontend", "predictor", "model_service"])
def test_the_transport_that_is_gone_is_refused_with_what_to_write_instead(service: str) -> None:
    flags = ["--model-dir", str(MODELS), "--transport", "envoy"]
    run = subprocess.run([sys.executable, "-m", service, *flags], capture_output=True, text=True, check=False, cwd=ROOT)

    assert run.returncode == 2
    assert "omit the setting, or set it to http2" in run.stderr


def answer_when_reached(client: IntentClient) -> Prediction:
    """Return the first answer: the frontend's channel may need a moment to find the predictor again."""
    given_up = time.monotonic() + 30
    while time.monotonic() < given_up:
        try:
            return client.predict("clinc150", "make a 10 minute timer")
        except Unavailable:
            continue
    pytest.fail("the predictor was not found again")
