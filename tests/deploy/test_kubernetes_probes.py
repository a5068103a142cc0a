"""The real services answer the probes in each state of their lives."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.builders import refusing_address
from tests.conftest import ROOT
from tests.deploy.manifests import render
from tests.end_to_end.processes import Service, running_service, stack, start, transports
from tests.fakes import volume as fake_volume
from tests.fakes.volume import FAULTS_VARIABLE, FakeVolume

pytestmark = pytest.mark.end_to_end

SERVES = {"startupProbe": True, "readinessProbe": True, "livenessProbe": True}
LIVES = {"startupProbe": True, "readinessProbe": False, "livenessProbe": True}
MODEL = "clinc150-kitchen"


@pytest.fixture(autouse=True)
def _rendered() -> None:
    """Skip the tests before a service is started if kubectl is missing."""
    render("base")


@pytest.fixture(params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def passed(kind: str, service: Service, timeout: float = 60) -> Mapping[str, bool]:
    """Return whether each probe of a Deployment passes; like the kubelet, accept only SERVING."""
    container = render("base").pod(kind).container
    with grpc.insecure_channel(service.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        found = {}
        for probe in SERVES:
            request = health_pb2.HealthCheckRequest(service=container[probe]["grpc"]["service"])
            status = stub.Check(request, wait_for_ready=True, timeout=timeout).status
            found[probe] = status == health_pb2.HealthCheckResponse.SERVING
        return found


def test_a_frontend_that_waits_for_a_predictor_is_not_ready_and_is_left_alone(tmp_path: Path, transport: str) -> None:
    routes = f"intent-classification=predictor://{refusing_address()}"
    frontend = start("frontend", ROOT / "models", tmp_path, "--routes", routes, transport=transport)
    try:
        assert passed("frontend", frontend) == LIVES
    finally:
        frontend.kill()


def test_a_predictor_that_loads_its_first_models_is_not_ready_and_is_left_alone(tmp_path: Path, volume: Path) -> None:
    shutil.copytree(ROOT / "models" / MODEL, volume / MODEL)
    faults = FakeVolume(tmp_path / "faults")
    faults.faults.mkdir()
    faults.hold(MODEL)
    with patch.dict(os.environ, {FAULTS_VARIABLE: str(faults.faults), "PYTHONPATH": str(ROOT)}):
        predictor = start(fake_volume.__name__, volume, tmp_path, "--preload", MODEL)
    try:
        held = faults.wait_until_held(MODEL)
        assert passed("predictor", predictor) == LIVES

        held.release()
        predictor.wait_until_serving()
        assert passed("predictor", predictor) == SERVES
    finally:
        predictor.kill()


def test_what_drains_takes_no_more_calls_and_is_left_alone(tmp_path: Path, transport: str) -> None:
    drains = ("--drain-delay-seconds", "60")
    with stack(ROOT / "models", tmp_path, frontend=drains, predictor=drains, transport=transport) as both:
        for kind, service in (("frontend", both.frontend), ("predictor", both.predictor)):
            assert passed(kind, service) == SERVES

            service.process.terminate()
            service.wait_until_logged("draining")
            assert passed(kind, service) == LIVES

            # The second signal ends the wait.
            assert service.stop() == 0


def test_what_hangs_passes_no_probe(tmp_path: Path, transport: str) -> None:
    with running_service("predictor", ROOT / "models", tmp_path, transport=transport) as predictor:
        predictor.signal_all(signal.SIGSTOP)
        try:
            with pytest.raises(grpc.RpcError) as failed:
                passed("predictor", predictor, timeout=1)
        finally:
            predictor.signal_all(signal.SIGCONT)
        error: Any = failed.value
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
