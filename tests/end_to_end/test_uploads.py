"""Models that appear, change and disappear while the services run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.client import IntentClient, Prediction
from serving.domain.errors import ModelNotFound, ModelUnusable
from serving.wire.residency_client import ResidentModel, ask_residency
from tests.builders import unseal
from tests.conftest import ROOT, shared
from tests.end_to_end.processes import Stack

SAMPLE = ROOT / "models" / "clinc150"
DOCUMENT = "make a 10 minute timer"
QUESTION = "merry christmas"
SEEDS_ANSWER = "credit_score"


def test_a_model_being_written_is_refused_and_served_as_soon_as_it_is_complete(running: Stack) -> None:
    folder = running.models / "arriving"
    folder.mkdir()
    with IntentClient(running.frontend.address) as client:
        for name in ("vocab.pth", "model.pth", "manifest.json"):
            with pytest.raises(ModelUnusable, match="finish its upload"):
                client.predict("arriving", DOCUMENT)
            assert resident("arriving", running) is None
            shutil.copy(SAMPLE / name, folder / name)

        assert client.predict("arriving", DOCUMENT).label == "timer"


def test_a_manifest_that_arrives_first_changes_nothing(running: Stack) -> None:
    folder = running.models / "manifest-first"
    folder.mkdir()
    with IntentClient(running.frontend.address) as client:
        for name in ("manifest.json", "model.pth", "vocab.pth"):
            with pytest.raises(ModelUnusable, match="finish its upload"):
                client.predict("manifest-first", DOCUMENT)
            shutil.copy(SAMPLE / name, folder / name)

        assert client.predict("manifest-first", DOCUMENT).label == "timer"


def test_a_file_that_is_half_written_is_refused_and_served_when_it_is_whole(running: Stack) -> None:
    folder = running.models / "half"
    unseal(Path(shutil.copytree(SAMPLE, folder)))
    whole = (folder / "model.pth").read_bytes()
    (folder / "model.pth").write_bytes(whole[: len(whole) // 2])
    with IntentClient(running.frontend.address) as client:
        with pytest.raises(ModelUnusable):
            client.predict("half", DOCUMENT)

        (folder / "model.pth").write_bytes(whole)

        assert client.predict("half", DOCUMENT).label == "timer"


def test_a_replaced_model_is_served_without_a_restart_and_a_removed_one_is_not_found(running: Stack) -> None:
    folder = running.models / "changing"
    shutil.copytree(SAMPLE, folder)
    with IntentClient(running.frontend.address) as client:
        assert client.predict("changing", DOCUMENT).model_version == "1.0"

        manifest = json.loads((folder / "manifest.json").read_text()) | {"ModelVersion": "2.0"}
        replace(folder / "manifest.json", json.dumps(manifest))
        eventually(lambda: client.predict("changing", DOCUMENT).model_version == "2.0")

        shutil.rmtree(folder)
        eventually(lambda: is_not_found(lambda: client.predict("changing", DOCUMENT)))


def test_a_bad_replacement_leaves_the_old_copy_serving(running: Stack) -> None:
    folder = running.models / "damaged-later"
    shutil.copytree(SAMPLE, folder)
    with IntentClient(running.frontend.address) as client:
        client.predict("damaged-later", DOCUMENT)
        before = resident("damaged-later", running)
        (folder / "model.pth").write_bytes(b"garbage")
        eventually(
            lambda: (
                client.predict("damaged-later", DOCUMENT).label == "timer"
                and ("error", "replacement refused; the loaded copy serves on") in told("damaged-later", running)
            )
        )

        assert client.predict("damaged-later", DOCUMENT).label == "timer"
        after = resident("damaged-later", running)
        assert before is not None
        assert after is not None
        assert (after.generation, after.bytes) == (before.generation, before.bytes)


@pytest.mark.slow
def test_a_model_copied_over_another_file_by_file_never_answers_with_a_mixture(running: Stack) -> None:
    folder = running.models / "overwritten"
    unseal(Path(shutil.copytree(SAMPLE, folder)))
    other = shared("seed-model/1")
    with IntentClient(running.frontend.address) as client:
        before = client.predict("overwritten", QUESTION).label
        after = client.predict("clinc150", QUESTION).label
        assert before == after
        with ThreadPoolExecutor(1) as pool:
            copy = pool.submit(copied_over, other, folder)
            while not copy.done():
                assert client.predict("overwritten", QUESTION).label in (before, SEEDS_ANSWER)
            copy.result()
        eventually(lambda: client.predict("overwritten", QUESTION).label == SEEDS_ANSWER)


def copied_over(source: Path, target: Path) -> None:
    """Copy file by file, as onto a slow volume; what waits between two files must not depend on their readers."""
    for name in ("vocab.pth", "manifest.json", "model.pth"):
        shutil.copy(source / name, target / name)
        time.sleep(0.3)


def replace(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}")
    staged.write_text(text)
    staged.rename(path)


def resident(model_id: str, running: Stack) -> ResidentModel | None:
    """Return the model in memory, or ``None`` if it is not loaded."""
    every = ask_residency(running.predictor.address).models
    return next((model for model in every if model.id == model_id), None)


def nothing_is_set_aside(running: Stack) -> bool:
    """Return whether no memory is held except that of the models in memory."""
    residency = ask_residency(running.predictor.address)
    return residency.held_bytes == sum(model.bytes for model in residency.models)


def told(model_id: str, running: Stack) -> set[tuple[str, str]]:
    """Return the level and the name of each event that the predictor has logged about the model."""
    return {(event["level"], event["event"]) for event in running.predictor.events() if event.get("model") == model_id}


def is_not_found(ask: Callable[[], Prediction]) -> bool:
    try:
        ask()
    except ModelNotFound:
        return True
    return False


def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Check until the condition holds: each check is a call, so this waits on the service, not on a clock."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
