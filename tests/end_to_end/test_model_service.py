"""ModelService and its commands: real processes and real grpcurl, over both transports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.client import IntentClient, ManagementClient
from serving.domain.errors import ReleaseConflict, Unavailable
from serving.domain.management import ModelChange
from serving.domain.model_id import parse_model_id
from serving.volume.publishing import publish
from serving.wire.residency_client import ask_residency
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, Stack, grpcurl, running_service, stack, transports
from tests.end_to_end.test_uploads import eventually

BANKING = ROOT / "models" / "clinc150-banking"
TRAVEL = ROOT / "models" / "clinc150-travel"
DOCUMENT = "what is my balance"
NAMES = 2000
FAILED, USAGE, UNAVAILABLE, CONFLICT = 1, 2, 3, 4


@pytest.fixture(params=transports())
def running(request: pytest.FixtureRequest, volume: Path, tmp_path: Path) -> Iterator[Stack]:
    """Both services over a name with two valid versions, a damaged one, and one that answers wrongly."""
    publish(BANKING, volume, parse_model_id("bot@1"))
    publish(TRAVEL, volume, parse_model_id("bot@2"))
    shutil.copytree(volume / "bot" / "1", volume / "bot" / "damaged")
    (volume / "bot" / "damaged" / "model.pth").write_bytes(b"nothing")
    wrong = shutil.copytree(TRAVEL, tmp_path / "wrong")
    manifest = json.loads((wrong / "manifest.json").read_text())
    manifest["Example"] = {"document": DOCUMENT, "label": "balance"}
    (wrong / "manifest.json").write_text(json.dumps(manifest))
    publish(wrong, volume, parse_model_id("bot@wrong"))
    with stack(volume, tmp_path, transport=request.param) as both:
        yield both


def grpcurl_of(service: Service, method: str, **request: Any) -> subprocess.CompletedProcess[str]:
    command = [grpcurl(), "-plaintext", "-d", json.dumps(request), service.address, f"prediction.ModelService/{method}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def asked(service: Service, method: str, **request: Any) -> dict[str, Any]:
    result = grpcurl_of(service, method, **request)
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "intentctl", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


def answering(service: Service, model_id: str) -> str:
    with IntentClient(service.address, timeout=30) as client:
        return client.predict(model_id, DOCUMENT).model_id


def test_versions_are_released_tried_and_rolled_back_with_grpcurl(running: Stack) -> None:
    frontend = running.frontend
    assert asked(frontend, "Release", name="bot", version="1", expected_revision=0)["stable"] == "1"
    assert answering(frontend, "bot") == "bot@1"
    for version, reason in (("damaged", "is not the file that"), ("wrong", "Example")):
        refused = grpcurl_of(frontend, "Release", name="bot", version=version)
        assert "Code: FailedPrecondition" in refused.stderr
        assert reason in refused.stderr
        assert answering(frontend, "bot") == "bot@1"
    state = asked(frontend, "Release", name="bot", version="2", role="CANARY", share=0.5)
    assert state["canary"]["version"] == "2"
    assert asked(frontend, "Promote", name="bot")["stable"] == "2"
    assert answering(frontend, "bot") == "bot@2"
    assert asked(frontend, "Rollback", name="bot", comment="it misunderstands")["stable"] == "1"
    assert answering(frontend, "bot") == "bot@1"
    stale = grpcurl_of(frontend, "Release", name="bot", version="2", expected_revision=1)
    assert "Code: Aborted" in stale.stderr
    history = asked(frontend, "GetRelease", name="bot", history=10)["history"]
    assert [change["action"] for change in history] == ["rollback", "promote", "canary", "release"]
    audit = [line for line in frontend.events() if line["event"] == "audit"]
    assert [(line["action"], line["model"], line["code"]) for line in audit][:3] == [
        ("release", "bot", "OK"),
        ("release", "bot", "FAILED_PRECONDITION"),
        ("release", "bot", "FAILED_PRECONDITION"),
    ]


def test_models_are_loaded_described_and_unloaded_where_they_are(running: Stack) -> None:
    frontend = running.frontend
    asked(frontend, "Release", name="bot", version="1")
    residence = asked(frontend, "LoadModel", runId="bot@2")["residence"]
    assert residence["resident"]
    described = asked(frontend, "DescribeModel", runId="bot@2")
    assert described["residences"][0]["replica"] == residence["replica"]
    assert described["residences"][0]["resident"]
    assert json.loads(described["manifest"])["Algorithm"] == "intent-classification"
    assert "statistics" not in described["residences"][0]
    assert answering(frontend, "bot@2") == answering(frontend, "bot@2") == "bot@2"
    asked(frontend, "UnloadModel", runId="bot@2")
    (gone,) = asked(frontend, "DescribeModel", runId="bot@2")["residences"]
    assert "resident" not in gone
    # Counts outlive the model's time in memory.
    assert gone["statistics"]["documents"] == "2"
    assert int(gone["statistics"]["tokens"]) > 2
    protected = grpcurl_of(frontend, "DeleteModel", runId="bot@1")
    assert "Code: FailedPrecondition" in protected.stderr
    asked(frontend, "DeleteModel", runId="bot@2")
    assert not (running.models / "bot" / "2").exists()
    assert "Code: NotFound" in grpcurl_of(frontend, "DescribeModel", runId="bot@2").stderr
    assert answering(frontend, "bot") == "bot@1"


def test_a_deleted_model_leaves_the_memory_of_the_predictor(running: Stack) -> None:
    publish(BANKING, running.models, parse_model_id("flat"))
    publish(TRAVEL, running.models, parse_model_id("other"))

    def held() -> set[str]:
        return {model.id for model in ask_residency(running.predictor.address).models}

    with ManagementClient(running.frontend.address) as client:
        client.release("bot", "1")
        for model_id in ("flat", "other", "bot@1", "bot@2"):
            answering(running.frontend, model_id)
        assert held() == {"flat", "other", "bot@1", "bot@2"}
        client.delete("flat", force=True)
        assert held() == {"other", "bot@1", "bot@2"}
        client.delete("bot", force=True)
        assert held() == {"other"}
    assert not [line for line in running.frontend.events() if "not unloaded" in line["event"]]


def test_a_list_pages_through_thousands_of_names_while_calls_are_answered(running: Stack) -> None:
    for number in range(NAMES):
        folder = running.models / f"tenant-{number:04}"
        folder.mkdir()
        (folder / "manifest.json").write_text('{"Algorithm": "intent-classification"}')
    names: list[str] = []

    def list_all() -> None:
        with ManagementClient(running.frontend.address) as client:
            names.extend(model.name for model in client.models(prefix="tenant-"))

    listing = threading.Thread(target=list_all)
    listing.start()
    answered = 0
    while listing.is_alive():
        assert answering(running.frontend, "bot@1") == "bot@1"
        answered += 1
    listing.join()
    assert answered > 0
    assert names == [f"tenant-{number:04}" for number in range(NAMES)]


def test_of_two_operators_who_know_the_same_revision_one_is_told(running: Stack) -> None:
    with ManagementClient(running.frontend.address) as one, ManagementClient(running.frontend.address) as other:
        known = one.release("bot", "1").revision
        other.release("bot", "2", expected_revision=known)
        with pytest.raises(ReleaseConflict, match="revision 2"):
            one.release("bot", "2", role="canary", expected_revision=known)
        assert other.release_of("bot").revision == 2


def test_a_watch_tells_of_changes_and_ends_with_the_service(running: Stack) -> None:
    told: list[ModelChange] = []
    synchronized, published, ended = threading.Event(), threading.Event(), threading.Event()

    def watch() -> None:
        with ManagementClient(running.frontend.address) as client:
            try:
                for change in client.watch(prefix="bot", initial=True):
                    told.append(change)
                    if change.kind == "synchronized":
                        synchronized.set()
                    if change.model_id == "bot@3":
                        published.set()
            except Unavailable:
                ended.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert synchronized.wait(30)
    with ManagementClient(running.frontend.address) as client:
        client.release("bot", "1")
        client.delete("bot@damaged")
    # No call publishes this version; the service finds it by looking at the volume.
    publish(BANKING, running.models, parse_model_id("bot@3"))
    assert published.wait(30)
    assert [(change.kind, change.model_id) for change in told if change.kind != "added"] == [
        ("synchronized", ""),
        ("released", "bot"),
        ("removed", "bot@damaged"),
    ]
    assert running.frontend.stop() == 0
    assert ended.wait(30)
    watcher.join()


@pytest.mark.slow
def test_commands_say_what_they_did_and_end_with_codes(running: Stack) -> None:
    at = ("--frontend", running.frontend.address)
    released = command("release", "bot", "1", "--expect", "0", "--comment", "first", *at)
    assert (released.returncode, released.stdout) == (0, "bot revision 1: stable 1\n")
    canary = command("release", "bot", "2", "--canary", "10%", "--max-disagreement", "30%", "--json", *at)
    assert canary.returncode == 0
    assert json.loads(canary.stdout)["canary"] == {
        "version": "2",
        "share": 0.1,
        "max_error_rate": 0.02,
        "max_disagreement": 0.3,
        "min_answers": 50,
    }
    assert command("promote", "bot", *at).stdout == "bot revision 3: stable 2\n"
    assert command("rollback", "bot", *at).stdout == "bot revision 4: stable 1\n"
    assert command("release", "bot", "2", "--label", "beta", *at).stdout == "bot revision 5: stable 1, beta 2\n"
    assert command("withdraw", "bot", "--label", "beta", *at).stdout == "bot revision 6: stable 1\n"
    rows = [line.split("\t") for line in command("history", "bot", *at).stdout.splitlines()]
    assert rows[0][:4] == ["revision", "at", "by", "action"]
    assert [row[3] for row in rows[1:]] == ["withdraw", "label", "rollback", "promote", "canary", "release"]
    (listed,) = json.loads(command("models", "--prefix", "bot", "--released", "--json", *at).stdout)
    assert (listed["stable"], listed["versions"]) == ("1", ["1", "2", "damaged", "wrong"])

    conflict = command("release", "bot", "2", "--expect", "1", *at)
    assert (conflict.returncode, "revision 6" in conflict.stderr) == (CONFLICT, True)
    assert command("release", "bot", "damaged", *at).returncode == FAILED
    assert command("delete", "bot@1", *at).returncode == FAILED
    assert command("delete", "bot/1", *at).returncode == USAGE
    assert command("withdraw", "bot", *at).returncode == USAGE
    assert command("history", "bot", "--frontend", "127.0.0.1:1").returncode == UNAVAILABLE
    deleted = command("delete", "bot@damaged", *at)
    assert (deleted.returncode, deleted.stdout) == (0, "deleted bot@damaged\n")


@pytest.mark.slow
def test_what_is_changed_on_the_volume_itself_the_services_follow(running: Stack) -> None:
    on = ("--model-dir", str(running.models))
    assert command("release", "bot", "1", *on).stdout == "bot revision 1: stable 1\n"
    with IntentClient(running.frontend.address, timeout=30) as client:
        assert client.predict("bot", DOCUMENT).model_id == "bot@1"
        assert command("release", "bot", "2", "--expect", "1", *on).returncode == 0
        eventually(lambda: client.predict("bot", DOCUMENT).model_id == "bot@2")
    for version in ("damaged", "wrong"):
        assert command("release", "bot", version, *on).returncode == FAILED
    assert command("rollback", "bot", "--expect", "1", *on).returncode == CONFLICT
    assert "first" not in command("history", "bot", *on).stdout
    assert command("delete", "bot@damaged", *on).returncode == 0


@pytest.mark.parametrize("transport", transports())
def test_one_process_has_it_too(volume: Path, tmp_path: Path, transport: str) -> None:
    publish(BANKING, volume, parse_model_id("bot@1"))
    with running_service("model_service", volume, tmp_path, transport=transport) as service:
        assert asked(service, "Release", name="bot", version="1")["stable"] == "1"
        assert asked(service, "DescribeModel", runId="bot")["residences"][0]["resident"]
        assert int(asked(service, "DescribeModel", runId="bot")["residences"][0]["statistics"]["documents"]) > 0
        asked(service, "UnloadModel", runId="bot")
        assert "resident" not in asked(service, "DescribeModel", runId="bot")["residences"][0]
        assert asked(service, "LoadModel", runId="bot")["residence"]["resident"]
