"""Start, health and stop of containers."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from serving.client import AsyncIntentClient, IntentClient, Prediction
from tests.builders import PATIENCE, free_port
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
KILL_A_WORKER = """
import os, pathlib, signal
files = pathlib.Path("/proc").glob("[0-9]*/cmdline")
commands = {int(file.parent.name): file.read_bytes().split(b"\\0") for file in files}
os.kill(min(number for number, command in commands.items() if b"serving.runtime.worker" in command), signal.SIGKILL)
"""
CHECK = ("health-check", "/tmp/health")  # noqa: S108 - the container's


def test_a_frontend_is_healthy_once_a_predictor_is_there(images: None, tmp_path: Path) -> None:
    stack = ComposeStack(MODELS, tmp_path, [f"127.0.0.1:{free_port()}"])
    try:
        stack.compose("up", "--detach", "--no-deps", "frontend")
        (frontend,) = stack.containers("frontend")
        ask = f"until {' '.join(CHECK)} 2>&1 | grep NOT_SERVING; do sleep 0.2; done"
        assert docker("exec", frontend, "sh", "-c", ask) == "NOT_SERVING"

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


def test_the_workers_of_a_container_drain_with_its_first_process_and_one_that_is_killed_is_followed(
    images: None,
) -> None:
    port = free_port()
    container = docker(
        "run", "--detach", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL",  # noqa: S108
        "--env", "INTENT_MODEL_SERVICE_WORKERS=2", "--volume", f"{MODELS}:/models:ro",
        "--publish", f"127.0.0.1:{port}:51001", MODEL_SERVICE,
    )  # fmt: skip
    try:
        wait_until_serving(f"127.0.0.1:{port}")
        wait_until_told(container, '"event": "ready"')
        docker("exec", container, "python", "-c", KILL_A_WORKER)
        wait_until_told(container, '"signal": "SIGKILL"')
        wait_until_told(container, '"event": "worker ready"', times=3)
        with IntentClient(f"127.0.0.1:{port}") as client:
            assert client.predict("clinc150", "make a 10 minute timer").label == "timer"
        docker("stop", "--time", "40", container)
        assert inspected(container)["State"]["ExitCode"] == 0
        assert docker("logs", container, both=True).count('"event": "worker stopped"') == 2
    finally:
        docker("rm", "--force", container)


def wait_until_told(container: str, text: str, *, times: int = 1) -> None:
    """Wait until the log of a container contains a text ``times`` times."""
    given_up = time.monotonic() + PATIENCE
    while docker("logs", container, both=True).count(text) < times:
        assert time.monotonic() < given_up, docker("logs", container, both=True)
        time.sleep(0.2)
