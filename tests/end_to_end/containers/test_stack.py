"""The stack as an operator starts it, called from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.conftest import ROOT
from tests.end_to_end.containers.compose import (
    ComposeStack,
    compose_stack,
    kinds_of_compose,
    wait_until_healthy,
)
from tests.end_to_end.containers.engine import docker
from tests.end_to_end.processes import grpcurl
from tests.samples import SAMPLES

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

DOCUMENT = "make a 10 minute timer"
SERVICES = ("frontend", "predictor")


def ask(stack: ComposeStack, model_id: str) -> subprocess.CompletedProcess[str]:
    """Send a query as the book does."""
    question = json.dumps({"runId": model_id, "document": DOCUMENT})
    command = [grpcurl(), "-plaintext", "-d", question, stack.address, "prediction.PredictionService/Predict"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("kind", ["docker-compose", "docker compose"])
def test_the_compose_file_is_taken_by_each_compose(kind: str) -> None:
    if kinds_of_compose()[kind] is None:
        pytest.skip(f"there is no {kind!r} here")
    profiles = [word for name in ("single", "observability") for word in ("--profile", name)]
    own = [*kind.split(), "--file", "docker-compose.yml"]
    everything = ["frontend", "grafana", "model-service", "predictor", "prometheus"]
    for files, expected in (
        ([], everything),
        (["--file", "deploy/compose/torchserve.yml"], [*everything, "torchserve"]),
    ):
        command = [*own, *files, *profiles, "config", "--services"]
        services = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT).stdout
        assert sorted(services.split()) == expected


@pytest.mark.parametrize("model_id", SAMPLES)
def test_every_sample_model_answers_grpcurl(stack: ComposeStack, model_id: str) -> None:
    answer = ask(stack, model_id)

    assert answer.returncode == 0, answer.stderr
    answered = json.loads(answer.stdout)
    assert answered["model"]["id"] == model_id
    assert json.loads(answered["response"]) == {"result": answered["label"]}


def test_the_books_line_answers_timer(stack: ComposeStack) -> None:
    assert json.loads(ask(stack, "clinc150").stdout)["response"] == '{"result": "timer"}'


def test_a_model_that_is_added_to_the_volume_is_served_without_a_restart(stack: ComposeStack) -> None:
    started = [docker("inspect", "--format", "{{.State.StartedAt}}", name) for name in containers_of(stack)]
    assert "Code: NotFound" in ask(stack, "added").stderr

    publish = [sys.executable, "-m", "intentctl", "publish", str(ROOT / "models" / "clinc150"), "added"]
    subprocess.run([*publish, "--model-dir", str(stack.models)], check=True, timeout=60, cwd=ROOT)

    # The result that the model is missing is cached for a second.
    answer = next(answer for answer in iter(lambda: ask(stack, "added"), None) if "NotFound" not in answer.stderr)
    assert json.loads(answer.stdout)["label"] == "timer"
    assert started == [docker("inspect", "--format", "{{.State.StartedAt}}", name) for name in containers_of(stack)]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_without_any_right(stack: ComposeStack, service: str) -> None:
    (container,) = stack.containers(service)
    statuses = docker("exec", container, "sh", "-c", "cat /proc/[0-9]*/status")

    # The first process and all processes that it has started.
    assert statuses.count("Name:") > 1
    for line in statuses.splitlines():
        name, _, value = line.partition(":")
        if name in {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}:
            assert int(value, 16) == 0, line
        if name in {"Uid", "Gid"}:
            assert set(value.split()) == {"10001"}, line
        if name == "NoNewPrivs":
            assert value.strip() == "1", line


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_can_write_to_its_temporary_folder_only(stack: ComposeStack, service: str) -> None:
    (container,) = stack.containers(service)
    mounts = docker("exec", container, "cat", "/proc/mounts").splitlines()
    options = {line.split()[1]: set(line.split()[3].split(",")) for line in mounts}
    folders = "/ /app /opt/intent /models /var/tmp /tmp"
    write = f"for folder in {folders}; do touch $folder/x 2>/dev/null && echo $folder; done; rm -f /tmp/x"

    assert "ro" in options["/"]
    assert "ro" in options["/models"]
    assert docker("exec", container, "sh", "-c", write).split() == ["/tmp"]  # noqa: S108 - the only writable folder


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_healthy_and_bounded(stack: ComposeStack, service: str) -> None:
    (container,) = stack.containers(service)
    wait_until_healthy(container)
    limits = json.loads(docker("inspect", "--format", "{{json .HostConfig}}", container))

    assert limits["Memory"] > 0
    assert limits["NanoCpus"] > 0
    assert limits["PidsLimit"] > 0
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"


def test_plain_http_is_answered_on_the_same_port(stack: ComposeStack) -> None:
    tensor = {"name": "document", "datatype": "BYTES", "shape": [1], "data": [DOCUMENT]}
    url = f"http://{stack.address}/v2/models/clinc150/infer"
    with urlopen(url, json.dumps({"inputs": [tensor]}).encode(), timeout=60) as answer:
        outputs = json.load(answer)["outputs"]

    assert outputs[0]["data"] == ["timer"]


def test_both_services_in_one_process(images: None, tmp_path: Path) -> None:
    with compose_stack(ROOT / "models", tmp_path, "--build", "model-service") as single:
        assert json.loads(ask(single, "clinc150").stdout)["label"] == "timer"
        assert single.containers("frontend") == single.containers("predictor") == []


def test_the_same_images_serve_on_grpcio_too(images: None, tmp_path: Path) -> None:
    services = {service: {"environment": {f"INTENT_{service.upper()}_TRANSPORT": "grpcio"}} for service in SERVICES}
    with compose_stack(ROOT / "models", tmp_path, overrides={"services": services}) as slower:
        assert json.loads(ask(slower, "clinc150").stdout)["label"] == "timer"


def test_without_torchserve_nothing_looks_for_it(stack: ComposeStack) -> None:
    """Last in the file, so that the log holds all that the other tests have caused."""
    (frontend,) = stack.containers("frontend")
    log = docker("logs", frontend, both=True)
    environment = docker("exec", frontend, "env")

    assert "torchserve" not in (log + environment).lower()
    assert [line for line in map(json.loads, log.splitlines()) if line["level"] == "error"] == []


def containers_of(stack: ComposeStack) -> list[str]:
    return [name for service in SERVICES for name in stack.containers(service)]
