"""Stacks of containers, started with Compose as an operator starts them, each under its own project name."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.wire.residency_client import Residency, ask_residency
from tests.builders import SERVING, free_port
from tests.conftest import ROOT
from tests.end_to_end.containers.engine import docker
from tests.end_to_end.containers.images import TAG, build_environment

START_SECONDS: Final = 120.0
PORT: Final = "51001"

PUBLISHED: Final[Mapping[str, Any]] = {"services": {"predictor": {"ports": [f"127.0.0.1::{PORT}"]}}}
"""Override that publishes each predictor, so that tests can query its residency; Docker chooses the port."""

_COMPOSE_SECONDS: Final = 1500


def kinds_of_compose() -> dict[str, str | None]:
    """Return the command of each kind of Compose; ``None`` if it is missing here."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, timeout=30, check=False)
    return {"docker-compose": shutil.which("docker-compose"), "docker compose": None if plugin.returncode else "docker"}


def compose_command() -> list[str]:
    """Return the Compose command that starts the stacks."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    return ["docker", "compose"]


@dataclass
class ComposeStack:
    """A Compose project over a folder of models."""

    models: Path
    workplace: Path
    addresses: Sequence[str]
    """Addresses of the frontends; several frontends have consecutive ports."""
    environment: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Differences from the project's own files, in their format."""
    files: Sequence[str] = ()
    """Files of deploy/compose that add to the project's own file."""
    project: str = field(default_factory=lambda: f"intent-test-{secrets.token_hex(4)}")

    @property
    def address(self) -> str:
        """Address at which callers reach the frontend."""
        return self.addresses[0]

    def up(self, *arguments: str) -> None:
        """Start the containers that are not running, and wait until the stack serves."""
        self.compose("up", "--detach", *arguments)
        for address in self.addresses:
            wait_until_serving(address)

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run a Compose command and return its output."""
        files = ["--file", str(ROOT / "docker-compose.yml")]
        for name in self.files:
            files += ["--file", str(ROOT / "deploy" / "compose" / name)]
        if self.overrides:
            override = self.workplace / "override.json"
            # JSON is valid YAML.
            override.write_text(json.dumps(self.overrides))
            files += ["--file", str(override)]
        published = self.address
        if len(self.addresses) > 1:
            published += "-" + self.addresses[-1].rpartition(":")[2]
        own = {"INTENT_TAG": TAG, "INTENT_MODELS": str(self.models), "INTENT_ADDRESS": published}
        run = subprocess.run(
            [*compose_command(), "--project-name", self.project, *files, *arguments],
            capture_output=True, text=True, timeout=_COMPOSE_SECONDS, check=False, cwd=ROOT,
            env=os.environ | build_environment() | own | dict(self.environment),
        )  # fmt: skip
        assert not check or run.returncode == 0, f"{' '.join(arguments)}:\n{run.stdout}\n{run.stderr}"
        return run.stdout

    def containers(self, service: str) -> list[str]:
        """Return the containers of a service, running or not, in the order of their numbers."""
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        filters = [argument for label in labels for argument in ("--filter", f"label={label}")]
        listed = docker("ps", "--all", *filters, "--format", "{{.Names}}")
        return sorted(listed.split())

    def down(self) -> None:
        """Remove all containers and volumes, whatever their state."""
        for service in ("frontend", "predictor", "model-service", "torchserve", "prometheus"):
            for container in self.containers(service):
                docker("rm", "--force", "--volumes", container, check=False)
        self.compose("down", "--volumes", "--remove-orphans", check=False)


@contextmanager
def compose_stack(
    models: Path,
    workplace: Path,
    *up: str,
    addresses: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    files: Sequence[str] = (),
) -> Iterator[ComposeStack]:
    """Run a stack, and remove it after the block."""
    addresses = addresses or [f"127.0.0.1:{free_port()}"]
    stack = ComposeStack(models, workplace, addresses, environment or {}, overrides or {}, files)
    try:
        stack.up(*up)
        yield stack
    finally:
        stack.down()


def inspected(container: str) -> dict[str, Any]:
    """Return the engine's description of a container."""
    description: dict[str, Any] = json.loads(docker("inspect", container))[0]
    return description


def health_of(container: str) -> str:
    """Return the health that the engine reports: starting, healthy or unhealthy."""
    return str(inspected(container)["State"]["Health"]["Status"])


def published_address(container: str) -> str:
    """Return the address of a container on this machine. If Docker chose the port, it changes with each start."""
    return docker("port", container, PORT).splitlines()[0]


def residency_of(containers: Sequence[str], *, limit: int = 0) -> dict[str, Residency]:
    """Return what each predictor holds: its ``limit`` most recently used models, or all if 0."""
    return {container: ask_residency(published_address(container), limit=limit) for container in containers}


def wait_until_healthy(container: str) -> None:
    """Wait until the engine reports the container as healthy."""
    given_up = time.monotonic() + START_SECONDS
    while health_of(container) != "healthy":
        assert time.monotonic() < given_up, docker("logs", "--tail", "50", container)
        time.sleep(0.2)


def wait_until_serving(address: str) -> None:
    """Wait until the server at ``address`` reports SERVING."""
    given_up = time.monotonic() + START_SECONDS
    with grpc.insecure_channel(address, options=(("grpc.max_reconnect_backoff_ms", 500),)) as channel:
        # The published type stubs of the health service omit Watch.
        health: Any = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < given_up:
            watch = health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=START_SECONDS)
            try:
                if any(update.status == SERVING for update in watch):
                    return
            except grpc.RpcError:
                # Docker accepts connections for a container that does not listen yet, and closes them.
                time.sleep(0.1)
    raise AssertionError(f"nothing serves at {address}")
