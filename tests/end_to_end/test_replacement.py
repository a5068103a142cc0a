"""A model that is replaced while requests run: they finish on the copy they began with, later ones get the new copy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.client import IntentClient
from serving.domain.model_id import ModelId, parse_model_id
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.volume.publishing import publish
from serving.wire.residency_client import Residency, ResidentModel, ask_residency
from tests.conftest import ROOT
from tests.end_to_end.processes import Stack, stack
from tests.end_to_end.test_uploads import eventually

pytestmark = pytest.mark.slow

SAMPLE = ROOT / "models" / "clinc150-banking"
DOCUMENT = "what is my balance"
BATCH, LONG_DOCUMENT = 4000, DOCUMENT * 40
"""Batch size and document of a call that keeps a thread busy for a good part of a second."""

FLAGS = ("--max-message-bytes", str(8 << 20))
LARGE_ANSWERS = (("grpc.max_receive_message_length", 64 << 20),)


def named_copy(folder: Path, name: str) -> Path:
    """Return a copy of the sample with ``name`` as its version and as the beginning of its labels."""
    shutil.copytree(SAMPLE, folder / name)
    manifest = json.loads((folder / name / "manifest.json").read_text())
    manifest["ModelVersion"] = name
    manifest["classes"] = {index: f"{name} {label}" for index, label in manifest["classes"].items()}
    (folder / name / "manifest.json").write_text(json.dumps(manifest))
    return folder / name


def ask_batch(channel: grpc.Channel, model_id: ModelId) -> Any:
    stub: Any = pb_grpc.PredictionServiceStub(channel)
    request = pb.PredictRequest(runId=model_id, document=LONG_DOCUMENT)
    return stub.PredictBatch.future(pb.PredictBatchRequest(requests=[request] * BATCH), timeout=60)


def dismissed_bytes(residency: Residency) -> int:
    """Return the bytes that are held but not listed: replaced copies that are in use."""
    return residency.held_bytes - sum(model.bytes for model in residency.models)


def test_calls_that_run_end_on_the_old_copy_and_the_next_one_gets_the_new(volume: Path, tmp_path: Path) -> None:
    old, new = named_copy(tmp_path, "old"), named_copy(tmp_path, "new")
    predictor = ("--inference-threads", "1", "--freshness-seconds", "0", *FLAGS)
    with stack(volume, tmp_path, frontend=FLAGS, predictor=predictor) as both:
        for batches in (4, 8, 16, 32):
            model_id = parse_model_id(f"replaced-under-{batches}-calls")
            publish(old, volume, model_id)
            if ran_through_a_replacement(both, model_id, new, batches):
                return
    pytest.fail("no call ran for as long as it takes to replace a model")


def ran_through_a_replacement(both: Stack, model_id: ModelId, new: Path, batches: int) -> bool:
    """Replace the model while calls run on it, and check them; return whether any call outlasted the replacement."""
    with (
        IntentClient(both.frontend.address, timeout=60) as client,
        grpc.insecure_channel(both.frontend.address, options=LARGE_ANSWERS) as channel,
    ):
        assert client.predict(model_id, DOCUMENT).label == "old balance"
        before = resident(both, model_id)
        calls = [ask_batch(channel, model_id) for _ in range(batches)]
        eventually(lambda: sum(call.done() for call in calls) + resident(both, model_id).leases == batches)
        # Calls check the files before they begin. This one does so after them: once it is answered, they have begun.
        assert client.predict(model_id, DOCUMENT).label == "old balance"

        publish(new, both.models, model_id, replace=True)
        eventually(lambda: client.predict(model_id, DOCUMENT).label == "new balance")

        swapped = ask_residency(both.predictor.address)
        copies = [model for model in swapped.models if model.id == model_id]
        assert [(model.version, model.generation > before.generation) for model in copies] == [("new", True)]
        in_use = dismissed_bytes(swapped)
        assert in_use in (0, before.bytes)
        answers = [{answer(result) for result in call.result().results} for call in calls]
        assert answers == [{("old balance", "old")}] * batches

        assert client.predict(model_id, DOCUMENT).label == "new balance"
        eventually(lambda: dismissed_bytes(ask_residency(both.predictor.address)) == 0)
        eventually(lambda: resident(both, model_id).leases == 0)
        assert resident(both, model_id).version == "new"
        return in_use > 0


def resident(both: Stack, model_id: ModelId) -> ResidentModel:
    (found,) = (model for model in ask_residency(both.predictor.address).models if model.id == model_id)
    return found


def answer(result: pb.PredictResult) -> tuple[str, str]:
    return result.response.label, result.response.model.version
