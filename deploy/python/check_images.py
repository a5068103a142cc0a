"""Check images of a release: each serves as its container does in production, and says what it is.

``python check_images.py --version VERSION --models FOLDER`` runs in an environment with the services, beside a Docker
engine that has the images with the tag VERSION. Exits with 1 and a reason if anything is missing.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from intent_serving_client import IntentClient

START_SECONDS = 300.0
PORT = "51001"
WRITABLE = "/tmp"  # noqa: S108 - the container's
# The settings of docker-compose.yml that a service has to work with.
AS_IN_PRODUCTION = (
    "--init", "--read-only", "--tmpfs", f"{WRITABLE}:size=64m",
    "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
)  # fmt: skip


def main() -> None:
    """Run the check that the command line requests."""
    parser = argparse.ArgumentParser(description="Check the images of a release.")
    parser.add_argument("--version", required=True, help="the version of the images")
    parser.add_argument("--tag", help="the tag of the images (default: the version)")
    parser.add_argument("--revision", default="", help="the commit that the images were built from")
    parser.add_argument("--models", required=True, type=Path, help="the sample models")
    flags = parser.parse_args()
    expected = {
        "org.opencontainers.image.version": flags.version,
        "org.opencontainers.image.revision": flags.revision,
        "org.opencontainers.image.licenses": "Apache-2.0",
    }
    # In this order: a frontend is healthy once its predictor is.
    started: list[tuple[str, str]] = []
    with _network() as network:
        for name in ("predictor", "frontend", "model-service"):
            image = f"intent-{name}:{flags.tag or flags.version}"
            labels = json.loads(_docker("image", "inspect", "--format", "{{json .Config.Labels}}", image))
            for label, value in expected.items():
                _require(labels.get(label) == value, f"{image} has {labels.get(label)!r} as {label}, not {value!r}")
            container = _start(image, name, network, flags.models.resolve())
            _check(container, image, predicts=name != "predictor")
            started.append((container, image))
        for container, image in reversed(started):
            _docker("stop", container)
            code = _docker("inspect", "--format", "{{.State.ExitCode}}", container)
            _require(code == "0", f"{image} ends with exit code {code} when it is stopped")


@contextmanager
def _network() -> Iterator[str]:
    """Make a network, and remove it afterwards with all of its containers."""
    network = f"intent-release-{secrets.token_hex(4)}"
    _docker("network", "create", network)
    try:
        yield network
    finally:
        containers = _docker("ps", "--all", "--quiet", "--filter", f"network={network}").split()
        if containers:
            _docker("rm", "--force", "--volumes", *containers)
        _docker("network", "rm", network)


def _start(image: str, name: str, network: str, models: Path) -> str:
    mount = ("--mount", f"type=bind,source={models},target=/models,readonly")
    place = ("--network", network, "--network-alias", name, "--publish", f"127.0.0.1::{PORT}")
    return _docker("run", "--detach", *AS_IN_PRODUCTION, *mount, *place, image)


def _check(container: str, image: str, *, predicts: bool) -> None:
    address = _docker("port", container, PORT).splitlines()[0]
    try:
        _wait_until_serving(address)
        if predicts:
            with IntentClient(address) as client:
                label = client.predict("clinc150", "make a 10 minute timer").label
            _require(label == "timer", f"{image} answers {label!r} instead of 'timer'")
    except Exception:
        subprocess.run(["docker", "logs", container], check=False)
        raise
    _docker("exec", container, "health-check", f"{WRITABLE}/health")
    # The first process, whose owner is not that of the commands which `docker exec` starts.
    owners = _docker("exec", container, "grep", "^Uid:", "/proc/1/status").split()[1:]
    _require("0" not in owners, f"{image} runs as root")


def _wait_until_serving(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        ask = health_pb2_grpc.HealthStub(channel)
        for health in ask.Watch(health_pb2.HealthCheckRequest(), timeout=START_SECONDS, wait_for_ready=True):
            if health.status == health_pb2.HealthCheckResponse.SERVING:
                return
    sys.exit(f"{address} ended without having served")


def _require(condition: bool, reason: str) -> None:
    if not condition:
        sys.exit(reason)


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
