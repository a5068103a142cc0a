"""The stack with TorchServe beside the predictor, as an operator starts it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client import IntentClient
from serving.domain.errors import ModelUnusable, Unavailable
from tests.builders import PATIENCE
from tests.conftest import ROOT
from tests.end_to_end.containers.compose import (
    START_SECONDS,
    ComposeStack,
    compose_stack,
    inspected,
    wait_until_healthy,
    wait_until_serving,
)
from tests.end_to_end.containers.engine import docker
from tests.end_to_end.processes import grpcurl
from tests.samples import copy_samples

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

SAMPLE, EXPORTED, WITHOUT_ARCHIVE = "clinc150", "clinc150-ts", "clinc150-lost"
DOCUMENT = "make a 10 minute timer"
WRITTEN_TO = ("/tmp", "/keys")  # noqa: S108 - the only writable folders

LOOK_UP = "import socket; socket.getaddrinfo('torchserve', 7070)"
PING_WITHOUT_A_KEY = "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/ping')"


def export(models: Path, published_as: str) -> None:
    """Export the sample model into the folder of models, under its id for TorchServe."""
    command = [sys.executable, "-m", "intentctl", "export", "--torchserve", SAMPLE, "--publish-as", published_as]
    subprocess.run([*command, "--model-dir", models, "--model-store", models], check=True, timeout=60, cwd=ROOT)


@pytest.fixture(scope="module")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    """The stack that deploy/compose/torchserve.yml describes."""
    models = tmp_path_factory.mktemp("volume") / "models"
    copy_samples(models)
    for model_id in (EXPORTED, WITHOUT_ARCHIVE):
        export(models, model_id)
    (models / f"model-{WITHOUT_ARCHIVE}.mar").unlink()
    with compose_stack(models, tmp_path_factory.mktemp("compose"), "--build", files=["torchserve.yml"]) as running:
        wait_until_healthy(torchserve_of(running))
        yield running


@pytest.fixture
def client(stack: ComposeStack) -> Iterator[IntentClient]:
    with IntentClient(stack.address, timeout=START_SECONDS) as made:
        yield made


def torchserve_of(stack: ComposeStack) -> str:
    """Return the container of TorchServe."""
    (container,) = stack.containers("torchserve")
    return container


def test_the_books_line_is_answered_by_torchserve(stack: ComposeStack) -> None:
    question = json.dumps({"runId": EXPORTED, "document": DOCUMENT})
    command = [grpcurl(), "-plaintext", "-d", question, stack.address, "prediction.PredictionService/Predict"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, check=False)

    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["response"] == '{"result": "timer"}'
    # One process for the only model that was queried.
    assert docker("top", torchserve_of(stack), "-o", "pid,args").count("model_service_worker.py") == 1


def test_both_engines_answer_one_frontend(client: IntentClient) -> None:
    answers = [client.predict(model_id, DOCUMENT, k=3) for model_id in (SAMPLE, EXPORTED)]

    assert [answer.label for answer in answers] == ["timer", "timer"]
    assert [best.label for best in answers[0].best] == [best.label for best in answers[1].best]


def test_a_model_without_its_archive_is_a_failed_precondition(client: IntentClient) -> None:
    with pytest.raises(ModelUnusable):
        client.predict(WITHOUT_ARCHIVE, DOCUMENT)


def test_an_archive_that_is_added_is_served_without_a_restart(stack: ComposeStack, client: IntentClient) -> None:
    export(stack.models, "added-ts")

    assert client.predict("added-ts", DOCUMENT).label == "timer"


def test_torchserve_runs_without_any_right(stack: ComposeStack) -> None:
    statuses = docker("exec", torchserve_of(stack), "sh", "-c", "cat /proc/[0-9]*/status")

    # The first process, which is Java, and a Python process for each model.
    assert statuses.count("Name:") > 2
    for line in statuses.splitlines():
        name, _, value = line.partition(":")
        if name in {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}:
            assert int(value, 16) == 0, line
        if name in {"Uid", "Gid"}:
            assert set(value.split()) == {"10001"}, line
        if name == "NoNewPrivs":
            assert value.strip() == "1", line


def test_torchserve_can_write_to_its_temporary_folder_and_its_keys_only(stack: ComposeStack) -> None:
    folders = "/ /app /opt/intent /models /etc/torchserve /var/tmp /tmp /keys"
    write = f"for folder in {folders}; do touch $folder/x 2>/dev/null && echo $folder; done; rm -f /tmp/x /keys/x"

    assert docker("exec", torchserve_of(stack), "sh", "-c", write).split() == [*WRITTEN_TO]


def test_torchserve_is_bounded(stack: ComposeStack) -> None:
    limits = inspected(torchserve_of(stack))["HostConfig"]

    assert limits["Memory"] > 0
    assert limits["NanoCpus"] > 0
    assert limits["PidsLimit"] > 0
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"
    assert limits["PortBindings"] in (None, {})


def test_nobody_but_the_frontend_reaches_torchserve_and_nobody_without_a_key(stack: ComposeStack) -> None:
    ((predictor,), (frontend,)) = (stack.containers(name) for name in ("predictor", "frontend"))

    assert "gaierror" in failure_in(predictor, LOOK_UP)
    assert docker("exec", frontend, "python", "-c", LOOK_UP) == ""
    assert "HTTP Error 400" in failure_in(torchserve_of(stack), PING_WITHOUT_A_KEY)


def failure_in(container: str, code: str) -> str:
    """Return the error output of a program that fails in a container."""
    run = subprocess.run(
        ["docker", "exec", container, "python", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 1
    return run.stderr


def test_a_torchserve_that_has_started_again_is_found_with_its_new_keys(
    stack: ComposeStack, client: IntentClient
) -> None:
    keys = docker("exec", torchserve_of(stack), "cat", "/keys/key_file.json")
    docker("restart", torchserve_of(stack))
    wait_until_healthy(torchserve_of(stack))

    assert docker("exec", torchserve_of(stack), "cat", "/keys/key_file.json") != keys
    assert answer_when_reached(client) == "timer"


def answer_when_reached(client: IntentClient) -> str:
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return client.predict(EXPORTED, DOCUMENT).label
        except Unavailable:
            assert time.monotonic() < give_up
            time.sleep(0.1)


def test_without_torchserve_the_frontend_starts_and_the_predictors_models_are_served(
    stack: ComposeStack, client: IntentClient
) -> None:
    stack.compose("stop", "torchserve")
    try:
        docker("restart", *stack.containers("frontend"))
        wait_until_serving(stack.address)

        assert client.predict(SAMPLE, DOCUMENT).label == "timer"
        with pytest.raises(Unavailable):
            client.predict(EXPORTED, DOCUMENT)
    finally:
        stack.compose("start", "torchserve")
