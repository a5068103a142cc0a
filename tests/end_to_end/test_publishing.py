"""Publishing under load, checksums that do not match, and what the command line shows of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from serving.client import IntentClient
from serving.domain.errors import ServingError
from serving.domain.model_id import parse_model_id
from serving.volume.publishing import publish
from serving.wire.residency_client import ask_residency
from tests.builders import unseal
from tests.conftest import ROOT
from tests.end_to_end.processes import Stack
from tests.end_to_end.test_uploads import eventually, nothing_is_set_aside, resident, told

pytestmark = pytest.mark.slow

SAMPLE = ROOT / "models" / "clinc150-banking"
DOCUMENT = "what is my balance"
CORRUPT_REPUBLISHES = 100


def version(folder: Path, target: Path, number: str) -> Path:
    """Return a copy of a model with another version."""
    shutil.copytree(folder, target)
    manifest = json.loads((target / "manifest.json").read_text()) | {"ModelVersion": number}
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


@contextmanager
def callers(address: str, model_id: str, count: int = 8) -> Iterator[list[str]]:
    """Run callers that query without a break until the block ends; yield the list of failures."""
    failures: list[str] = []
    answers: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        with IntentClient(address, timeout=30) as client:
            while not stop.is_set():
                try:
                    answers.append(client.predict(model_id, DOCUMENT).label)
                except ServingError as error:
                    failures.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(answers) == {"balance"}


def test_a_file_that_is_not_the_manifests_is_data_loss_and_the_loaded_copy_stays(running: Stack) -> None:
    fresh, loaded = parse_model_id("sums-fresh"), parse_model_id("sums-loaded")
    for model_id in (fresh, loaded):
        publish(SAMPLE, running.models, model_id)
    with IntentClient(running.frontend.address) as client:
        assert client.predict(loaded, DOCUMENT).label == "balance"
        before = resident(loaded, running)
        for model_id in (fresh, loaded):
            weights = running.models / model_id / "model.pth"
            data = bytearray(weights.read_bytes())
            data[len(data) // 2] ^= 1
            weights.write_bytes(data)

        with pytest.raises(ServingError) as refusal:
            client.predict(fresh, DOCUMENT)
        assert refusal.value.code is grpc.StatusCode.DATA_LOSS
        assert resident(fresh, running) is None
        refused = ("error", "replacement refused; the loaded copy serves on")
        eventually(lambda: client.predict(loaded, DOCUMENT).label == "balance" and refused in told(loaded, running))

        assert client.predict(loaded, DOCUMENT).label == "balance"
        after = resident(loaded, running)
        assert before is not None
        assert after is not None
        assert after.generation == before.generation
        eventually(lambda: nothing_is_set_aside(running))


def test_a_hundred_corrupt_republishes_under_load_fail_no_request(
    running: Stack, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    model_id = parse_model_id("republished")
    publish(SAMPLE, running.models, model_id)
    good = (SAMPLE / "model.pth").read_bytes()
    with IntentClient(running.frontend.address) as client:
        client.predict(model_id, DOCUMENT)

    with callers(running.frontend.address, model_id) as failures:
        for attempt in range(CORRUPT_REPUBLISHES):
            damaged = version(SAMPLE, tmp_path / str(attempt), f"bad-{attempt}")
            (damaged / "model.pth").write_bytes(good[: len(good) - 1 - attempt])
            publish(unseal(damaged), running.models, model_id, replace=True, settle_seconds=0.0)
    figure(f"failed requests during {CORRUPT_REPUBLISHES} corrupt republishes: {len(failures)}")
    assert failures == []


def test_good_republishes_under_load_fail_no_request_and_the_last_one_answers(running: Stack, tmp_path: Path) -> None:
    model_id = parse_model_id("released")
    publish(SAMPLE, running.models, model_id)
    with callers(running.frontend.address, model_id) as failures:
        for number in range(20):
            publish(version(SAMPLE, tmp_path / str(number), str(number)), running.models, model_id, replace=True)
    assert failures == []
    with IntentClient(running.frontend.address) as client:
        for _ in range(1000):
            if client.predict(model_id, DOCUMENT).model_version == "19":
                return
    pytest.fail("the last release does not answer")


def test_the_command_line_publishes_and_shows_what_is_resident(running: Stack) -> None:
    command = [
        sys.executable,
        "-m",
        "intentctl",
        "publish",
        str(SAMPLE),
        "by-command",
        "--model-dir",
        str(running.models),
    ]
    published = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    again = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    with IntentClient(running.frontend.address) as client:
        client.predict("by-command", DOCUMENT)
    listing = [sys.executable, "-m", "intentctl", "models", "--resident", "--predictor", running.predictor.address]
    shown = subprocess.run(
        [*listing, "--model-dir", str(running.models)], capture_output=True, text=True, check=False, cwd=ROOT
    )

    assert published.returncode == 0, published.stderr
    assert again.returncode == 1
    assert "already" in again.stderr
    assert shown.returncode == 0, shown.stderr
    assert any(line.startswith("by-command\t") for line in shown.stdout.splitlines())


def test_residency_tells_bytes_leases_hits_and_counters(running: Stack) -> None:
    publish(SAMPLE, running.models, parse_model_id("watched"))
    with IntentClient(running.frontend.address) as client:
        for _ in range(5):
            client.predict("watched", DOCUMENT)

    residency = ask_residency(running.predictor.address)

    watched = next(model for model in residency.models if model.id == "watched")
    assert watched.hits >= 4
    assert watched.leases == 0
    assert watched.bytes > (SAMPLE / "model.pth").stat().st_size * 0.9
    assert residency.held_bytes == sum(model.bytes for model in residency.models)
    assert residency.held_bytes <= residency.budget_bytes
    assert residency.counters["loads"] >= 1
    assert residency.counters["hits"] >= 4
