"""The profile "observability": Prometheus finds every replica by name, in the stack as it is deployed.

No image registry is contacted: the Prometheus image is a stand-in, built from Debian's package where that is installed.
Its configuration (command, files, user, networks, a read-only root) is that of docker-compose.yml.
"""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.builders import free_port
from tests.conftest import ROOT
from tests.deploy.observability import rules_of, tool_of_prometheus
from tests.end_to_end.containers.compose import START_SECONDS, ComposeStack, compose_stack, inspected
from tests.end_to_end.containers.engine import BASE, docker
from tests.end_to_end.containers.images import TAG

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

PROMETHEUS: Final = f"intent-prometheus:{TAG}"
METRICS_PORT: Final = "51090"
REPLICAS: Final = {"frontend": 1, "predictor": 2}

_DOCKERFILE: Final = f"""
FROM {BASE}
COPY prometheus /bin/prometheus
RUN mkdir /prometheus && chown 65534:65534 /prometheus
ENTRYPOINT ["/bin/prometheus"]
"""


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with Prometheus at the path that the official image uses."""
    context = tmp_path_factory.mktemp("prometheus")
    shutil.copy(tool_of_prometheus("prometheus"), context / "prometheus")
    (context / "Dockerfile").write_text(_DOCKERFILE)
    docker("build", "--tag", PROMETHEUS, str(context))
    return PROMETHEUS


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def watched(images: None, stand_in: str, port: int, workplace: Path) -> Iterator[ComposeStack]:
    environment = {"INTENT_PROMETHEUS_ADDRESS": f"127.0.0.1:{port}"}
    overrides = {"services": {"prometheus": {"image": stand_in}}}
    wanted = ("--scale", f"predictor={REPLICAS['predictor']}", "frontend", "prometheus")
    with compose_stack(ROOT / "models", workplace, *wanted, environment=environment, overrides=overrides) as stack:
        yield stack


def asked(port: int, what: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{what}", timeout=30) as answer:
        return json.load(answer)["data"]


def targets(port: int) -> dict[str, int]:
    """Return the number of targets of each job that are up."""
    found: dict[str, int] = {}
    for target in asked(port, "targets")["activeTargets"]:
        if target["health"] == "up":
            found[target["labels"]["job"]] = found.get(target["labels"]["job"], 0) + 1
    return found


def test_every_replica_is_found_by_name_and_scraped(watched: ComposeStack, port: int) -> None:
    given_up = time.monotonic() + START_SECONDS
    while (found := targets(port)) != {**REPLICAS, "prometheus": 1}:
        assert time.monotonic() < given_up, (found, docker("logs", *watched.containers("prometheus"), both=True))
        time.sleep(1)


def test_the_rules_that_are_mounted_are_those_that_are_evaluated(watched: ComposeStack, port: int) -> None:
    loaded = [rule["name"] for group in asked(port, "rules")["groups"] for rule in group["rules"]]
    assert sorted(loaded) == sorted(
        [rule["alert"] for rule in rules_of("alerts.yml")] + [rule["record"] for rule in rules_of("recording.yml")]
    )


def test_metrics_are_found_inside_of_the_network_alone(watched: ComposeStack) -> None:
    for service in REPLICAS:
        for container in watched.containers(service):
            assert METRICS_PORT not in docker("port", container)


def test_prometheus_is_locked_up_and_seen_by_this_machine_alone(watched: ComposeStack) -> None:
    (container,) = watched.containers("prometheus")
    described = inspected(container)
    host = described["HostConfig"]
    assert described["State"]["Running"]
    assert described["Config"]["User"] == "65534:65534"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert {each["HostIp"] for ports in host["PortBindings"].values() for each in ports} == {"127.0.0.1"}


def test_the_stack_starts_without_who_watches_it(watched: ComposeStack) -> None:
    assert watched.containers("grafana") == []
