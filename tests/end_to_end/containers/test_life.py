"""Starting, health and stopping of containers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serving.client import AsyncIntentClient, IntentClient, Prediction
from tests.builders import free_port
from tests.conftest import ROOT
from tests.end_to_end.containers.compose import (
    ComposeStack,
    compose_stack,
    inspected,
    wait_until_healthy,
    wait_until_serving,
)
from tests.end_to_end.containers.engine import docker
from tests.end_to_end.containers.images import MODEL_SERVICE

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

MODELS = ROOT / "models"
CHECK = ("python", "-m", "serving.health_check")


def test_a_frontend_is_healthy_once_a_predictor_is_there(images: None, tmp_path: Path) -> None:
    stack = ComposeStack(MODELS, tmp_path, [f"127.0.0.1:{free_port()}"])
    try:
        stack.compose("up", "--detach", "--no-deps", "frontend")
        (frontend,) = stack.containers("frontend")
        ask = f"until {' '.join(CHECK)} 2>&1 | grep NOT_SERVING; do sleep 0.2; done"
        assert "127.0.0.1:51001 says NOT_SERVING" in docker("exec", frontend, "sh", "-c", ask)

        stack.up("predictor")
        wait_until_healthy(frontend)
        docker("exec", frontend, *CHECK)
    finally:
        stack.down()


async def test_a_frontend_that_is_stopped_answers_every_call_that_it_has_taken(images: None, tmp_path: Path) -> None:
    with compose_stack(MODELS, tmp_path) as stack:
        (frontend,) = stack.containers("frontend")
        async with AsyncIntentClient(stack.address, timeout=60) as client:
            calls = [asyncio.ensure_future(client.predict("clinc150", f"timer {i}")) for i in range(300)]
            await calls[0]
            stopping = asyncio.create_task(asyncio.to_thread(docker, "stop", "--time", "40", frontend))
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            await stopping

        assert [outcome for outcome in outcomes if not isinstance(outcome, Prediction)] == []
        assert inspected(frontend)["State"]["ExitCode"] == 0


def test_services_that_are_stopped_end_by_themselves_and_without_a_fault(images: None, tmp_path: Path) -> None:
    with compose_stack(MODELS, tmp_path) as stack:
        stack.compose("stop")

        for service in ("frontend", "predictor"):
            (container,) = stack.containers(service)
            assert inspected(container)["State"]["ExitCode"] == 0, service
            assert '"event": "stopped"' in docker("logs", container, both=True)


def test_an_image_runs_without_compose_as_anybody_and_drains_as_the_first_process(images: None) -> None:
    port = free_port()
    container = docker(
        "run", "--detach", "--user", "4321:4321", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",  # noqa: S108
        "--volume", f"{MODELS}:/models:ro", "--publish", f"127.0.0.1:{port}:51001", MODEL_SERVICE,
    )  # fmt: skip
    try:
        wait_until_serving(f"127.0.0.1:{port}")
        with IntentClient(f"127.0.0.1:{port}") as client:
            assert client.predict("clinc150", "make a 10 minute timer").label == "timer"
        docker("stop", "--time", "40", container)
        assert inspected(container)["State"]["ExitCode"] == 0
    finally:
        docker("rm", "--force", container)
