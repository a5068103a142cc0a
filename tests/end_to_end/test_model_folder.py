"""MODEL_DIR as a link that is swapped, and a model folder that vanishes: models in memory answer throughout."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.client import IntentClient
from serving.domain.errors import ModelNotFound, Unavailable
from serving.domain.model_id import ModelId
from serving.volume.publishing import publish
from tests.builders import free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, Stack, running_service, stack, start
from tests.end_to_end.test_uploads import eventually, is_not_found
from tests.exposition import Exposition

BANKING, TRAVEL, KITCHEN = (ROOT / "models" / f"clinc150-{name}" for name in ("banking", "travel", "kitchen"))
LUGGAGE, CALORIES = "is my luggage lost", "how many calories are in a bagel"
GONE = "the model folder cannot be read; only models in memory are answered"
BACK = "the model folder can be read again"

_NOT_ALL_FOLDERS = "-dac_override,-dac_read_search"
UNPRIVILEGED = ("setpriv", f"--bounding-set={_NOT_ALL_FOLDERS}", f"--inh-caps={_NOT_ALL_FOLDERS}")
"""Command under which root may not read what its mode forbids."""


def revision(volume: Path, name: str, **models: Path) -> Path:
    """Return the folder of a revision with these models."""
    for model_id, source in models.items():
        shutil.copytree(source, volume / name / model_id)
    return volume / name


def swap(link: Path, target: str) -> None:
    """Let the link lead to another revision in one step, as git-sync does."""
    staged = link.with_name(".staged-link")
    staged.symlink_to(target)
    staged.replace(link)


@pytest.fixture
def current(volume: Path) -> Path:
    """A link to a revision with the model "bank"."""
    revision(volume, "rev-1", bank=BANKING)
    (volume / "current").symlink_to("rev-1")
    return volume / "current"


@pytest.fixture(params=["two processes", "one process", "workers"])
def frontend(request: pytest.FixtureRequest, current: Path, tmp_path: Path) -> Iterator[Service]:
    """The service that callers ask, over a link."""
    if request.param == "one process":
        with running_service("model_service", current, tmp_path) as service:
            yield service
    else:
        several = ("--workers", "2") if request.param == "workers" else ()
        with stack(current, tmp_path, frontend=several) as both:
            yield both.frontend


def test_the_new_revision_is_served_once_the_link_leads_to_it(frontend: Service, current: Path) -> None:
    with IntentClient(frontend.address, timeout=30) as client:
        assert client.predict("bank", LUGGAGE).label != "lost_luggage"
        revision(current.parent, "rev-2", bank=TRAVEL, new=KITCHEN)
        swap(current, "rev-2")
        eventually(lambda: client.predict("bank", LUGGAGE).label == "lost_luggage")
        eventually(lambda: not is_not_found(lambda: client.predict("new", CALORIES)))
        assert client.predict("new", CALORIES).label == "calories"

        shutil.rmtree(current.parent / "rev-1")
        for _ in range(20):
            assert client.predict("bank", LUGGAGE).label == "lost_luggage"

        revision(current.parent, "rev-3", bank=BANKING)
        swap(current, "rev-3")
        eventually(lambda: is_not_found(lambda: client.predict("new", CALORIES)))


def watched(stack: Stack) -> list[Service]:
    return [stack.frontend, stack.predictor]


def lines(service: Service, event: str) -> list[str]:
    return [line["level"] for line in service.events() if line["event"] == event]


def health(service: Service, name: str) -> int:
    with grpc.insecure_channel(service.address) as channel:
        # The published type stubs of the health service omit Check.
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=30, wait_for_ready=True).status)


def readable(port: int) -> float:
    return Exposition.at(port).value("intent_model_folder_readable")


def test_a_folder_that_vanishes_is_unavailable_and_reported_while_models_in_memory_answer(
    current: Path, tmp_path: Path
) -> None:
    ports = free_port(), free_port()
    revision(current.parent, "rev-1", cold=TRAVEL)
    frontend, predictor = (("--metrics-port", str(port), "--freshness-seconds", "0.1") for port in ports)
    with (
        stack(current, tmp_path, frontend=frontend, predictor=predictor) as both,
        IntentClient(both.frontend.address, timeout=30) as client,
    ):
        assert client.predict("bank", "what is my balance").label == "balance"
        assert [readable(port) for port in ports] == [1.0, 1.0]

        (current.parent / "rev-1").rename(current.parent / "aside")
        for service in watched(both):
            service.wait_until_logged(GONE)
        for model_id in ("cold", "no-such-model"):
            with pytest.raises(Unavailable, match="folder of all models"):
                client.predict(model_id, LUGGAGE)
        for _ in range(50):
            assert client.predict("bank", "what is my balance").label == "balance"
        assert [readable(port) for port in ports] == [0.0, 0.0]
        for service in watched(both):
            assert health(service, "") == health_pb2.HealthCheckResponse.SERVING, "models in memory are answered"
            assert health(service, "liveness") == health_pb2.HealthCheckResponse.SERVING

        (current.parent / "aside").rename(current.parent / "rev-1")
        for service in watched(both):
            service.wait_until_logged(BACK)
        eventually(lambda: [readable(port) for port in ports] == [1.0, 1.0])
        assert client.predict("cold", LUGGAGE).label == "lost_luggage"
        with pytest.raises(ModelNotFound):
            client.predict("no-such-model", LUGGAGE)
        for service in watched(both):
            assert lines(service, GONE) == ["error"]
            assert lines(service, BACK) == ["info"]
            assert not [line for line in service.events() if line.get("model") == "bank" and line["level"] != "info"]


@pytest.mark.parametrize("name", ["frontend", "predictor", "model_service"])
def test_a_service_that_starts_without_a_model_folder_ends_with_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "current").symlink_to("not-there-yet")
    service = start(name, tmp_path / "current", tmp_path)
    assert service.process.wait(60) == 2
    _, *faults = service.log.read_text().splitlines()
    assert [fault.strip().partition(": ")[2] for fault in faults] == ["Path does not point to a directory"]


def test_a_service_that_starts_with_a_folder_it_may_not_enter_says_so_and_is_ready_once_it_may(
    tmp_path: Path, volume: Path
) -> None:
    publish(BANKING, volume, ModelId("bank"))
    volume.chmod(0)
    service = start("predictor", volume, tmp_path, before=() if os.geteuid() else UNPRIVILEGED)
    try:
        assert service.wait_until_logged(GONE)["reason"] == "Permission denied"
        assert health(service, "") == health_pb2.HealthCheckResponse.NOT_SERVING
        assert health(service, "liveness") == health_pb2.HealthCheckResponse.SERVING
        volume.chmod(0o755)
        service.wait_until_serving()
        assert lines(service, GONE) == ["error"]
        assert lines(service, BACK) == ["info"]
    finally:
        service.stop(signal.SIGTERM)
