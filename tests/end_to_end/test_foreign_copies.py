"""Copies that other programs make, file by file and without sums, while their model is asked for and not in memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import pytest

from serving.client import IntentClient
from serving.domain.errors import Unavailable
from serving.domain.prediction import Query
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.volume.model_store import MODEL_FILES
from tests.builders import unseal
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, Stack, running_service, stack, start, transports
from tests.end_to_end.test_uploads import eventually, resident

OLD = ROOT / "models" / "clinc150-travel"
NEW = ROOT / "models" / "clinc150-kitchen"
QUESTION = "how many calories are in a bagel"
RIGHT = "calories"
QUESTIONS = (QUESTION, "how do i make lasagna", "will you book me a flight", "")
ROOM_FOR_ONE = ("--max-models", "1")
BETWEEN_FILES_SECONDS = 0.4
SKEWS = (-300, 300)
"""Seconds that the clock of the services is ahead of that of the file server."""


def foreign(source: Path, target: Path) -> Path:
    """Return a folder with the model of ``source`` whose manifest has no sums."""
    return unseal(Path(shutil.copytree(source, target)))


def copied_over(source: Path, target: Path) -> None:
    """Copy as ``cp`` does onto a slow volume: the manifest first, each file with a pause before the next."""
    for name in MODEL_FILES:
        shutil.copy(source / name, target / name)
        time.sleep(BETWEEN_FILES_SECONDS)


def labels_of(source: Path) -> set[str]:
    return set(json.loads((source / "manifest.json").read_text())["classes"].values())


@pytest.fixture(scope="module", params=transports())
def one_process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("one-process")
    (folder / "models").mkdir()
    with running_service("model_service", folder / "models", folder, transport=request.param) as service:
        yield service


def answers_while_copied(address: str, models: Path, tmp_path: Path, model_id: str, callers: int = 8) -> set[str]:
    """Ask for a cold model from the moment its manifest is another one; return the labels of all answers."""
    new = foreign(NEW, tmp_path / "new")
    folder = foreign(OLD, models / model_id)
    with IntentClient(address, timeout=30) as client, ThreadPoolExecutor(callers + 1) as pool:
        copy = pool.submit(copied_over, new, folder)
        while json.loads((folder / "manifest.json").read_text() or "{}").get("ModelName") != "clinc150-kitchen":
            time.sleep(0.001)
        asked = [pool.submit(client.predict, model_id, QUESTION) for _ in range(callers)]
        answers = {each.result().label for each in asked}
        copy.result()
    return answers


def test_a_cold_model_that_is_copied_over_answers_with_the_whole_new_copy(running: Stack, tmp_path: Path) -> None:
    assert answers_while_copied(running.frontend.address, running.models, tmp_path, "copied-over") == {RIGHT}


def test_the_same_in_one_process(one_process: Service, tmp_path: Path) -> None:
    models = one_process.log.parent / "models"
    assert answers_while_copied(one_process.address, models, tmp_path, "copied-over") == {RIGHT}


def answers_of(both: Stack, model_id: str) -> list[Any]:
    """Return the model's answers to all questions, one by one with explanations, and as a batch."""
    with IntentClient(both.frontend.address, timeout=30) as client:
        answers = [client.predict(model_id, question, k=5, explain=()) for question in QUESTIONS]
        return [*answers, *client.predict_batch([Query(model_id, question, k=3) for question in QUESTIONS])]


@pytest.fixture
def room_for_one(tmp_path: Path, volume: Path) -> Iterator[Stack]:
    """Both services, whose predictor has room for one model."""
    for model_id in ("foreign", "sealed"):
        shutil.copytree(NEW, volume / model_id)
    shutil.copytree(OLD, volume / "other")
    unseal(volume / "foreign")
    with stack(volume, tmp_path, predictor=ROOM_FOR_ONE) as both:
        yield both
        # A test may have started it again.
        both.predictor.kill()


def evict(both: Stack) -> None:
    with IntentClient(both.frontend.address, timeout=30) as client:
        client.predict("other", QUESTION)


def unload(both: Stack) -> None:
    with grpc.insecure_channel(both.predictor.address) as channel:
        pb_grpc.PredictorStub(channel).Unload(pb.UnloadRequest(runId="foreign"), timeout=30)


def restart(both: Stack, number: signal.Signals = signal.SIGTERM) -> None:
    former = both.predictor
    former.stop(number)
    port = int(former.address.rpartition(":")[2])
    both.predictor = start("predictor", both.models, former.log.parent, *ROOM_FOR_ONE, port=port)
    both.predictor.wait_until_serving()
    # The frontend connects again within a moment.
    eventually(lambda: is_answered(both, "other"))


def kill(both: Stack) -> None:
    restart(both, signal.SIGKILL)


def is_answered(both: Stack, model_id: str) -> bool:
    with IntentClient(both.frontend.address, timeout=30) as client:
        try:
            return bool(client.predict(model_id, QUESTION).label)
        except Unavailable:
            return False


@pytest.mark.parametrize("gone", [evict, unload, restart, kill])
def test_the_answers_are_the_same_after_the_model_was_out_of_memory(
    room_for_one: Stack, gone: Callable[[Stack], None]
) -> None:
    before = answers_of(room_for_one, "foreign")
    assert RIGHT in {answer.label for answer in before}
    for _ in range(2):
        gone(room_for_one)
        eventually(lambda: resident("foreign", room_for_one) is None)
        assert answers_of(room_for_one, "foreign") == before
    sealed = [answer._replace(model_id="foreign") for answer in answers_of(room_for_one, "sealed")]
    assert sealed == before, "and the same as those of the sealed copy"


@pytest.mark.parametrize("skew", SKEWS)
def test_the_clock_of_the_file_server_does_not_matter(tmp_path: Path, volume: Path, skew: int) -> None:
    folder = foreign(OLD, volume / "m")
    clock = {"PYTHONPATH": str(ROOT / "tests" / "fakes" / "wrong_clock"), "FAKE_CLOCK_AHEAD_SECONDS": str(skew)}
    with patch.dict(os.environ, clock), stack(volume, tmp_path) as both:
        with IntentClient(both.frontend.address, timeout=30) as client:
            assert client.predict("m", QUESTION).label in labels_of(OLD)
            copied_over(foreign(NEW, tmp_path / "new"), folder)
            eventually(lambda: client.predict("m", QUESTION).label == RIGHT)
        # A cold one too: the mixture in its folder is newer, or older, than anything by the clock of the services.
        assert answers_while_copied(both.frontend.address, volume, tmp_path / "cold", "cold") == {RIGHT}


def test_a_caller_who_cannot_wait_is_told_to_try_again(running: Stack) -> None:
    foreign(NEW, running.models / "hasty")
    with grpc.insecure_channel(running.frontend.address) as channel:
        ask = pb_grpc.PredictionServiceStub(channel).Predict
        with pytest.raises(grpc.RpcError) as refused:
            ask(pb.PredictRequest(runId="hasty", document=QUESTION), timeout=0.7)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "try again in a second" in (refused.value.details() or "")
        # The published type of metadata cannot be iterated.
        metadata: Any = refused.value.trailing_metadata()
        assert 0.0 < float(dict(metadata)["retry-after"]) <= 1.0
    with IntentClient(running.frontend.address, timeout=30) as client:
        assert client.predict("hasty", QUESTION).label == RIGHT


def test_a_sealed_model_is_not_waited_for(running: Stack) -> None:
    shutil.copytree(NEW, running.models / "sealed")
    with IntentClient(running.frontend.address, timeout=30) as client:
        assert client.predict("sealed", QUESTION).label == RIGHT
    rests = "the model's files must be unchanged for a moment first"
    assert not [line for line in running.predictor.events() if line["event"] == rests and line["model"] == "sealed"]


def test_a_foreign_model_that_is_preloaded_is_in_memory_when_the_predictor_is_ready(
    tmp_path: Path, volume: Path
) -> None:
    foreign(NEW, volume / "wanted")
    with stack(volume, tmp_path, predictor=("--preload", "wanted")) as both:
        assert resident("wanted", both) is not None


def test_files_that_never_come_to_rest_are_unavailable_and_not_called_damaged(running: Stack, tmp_path: Path) -> None:
    folder = foreign(NEW, running.models / "restless")
    manifest = (folder / "manifest.json").read_text()
    staged = running.models / "restless" / ".staged"
    with IntentClient(running.frontend.address, timeout=30) as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.predict, "restless", QUESTION)
        while not asked.done():
            staged.write_text(manifest)
            staged.replace(folder / "manifest.json")
            time.sleep(0.1)
        assert isinstance(asked.exception(), Unavailable)
        assert client.predict("restless", QUESTION).label == RIGHT
