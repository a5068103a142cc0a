"""Batches of queries to answer only if they wait for no model, as a frontend sends them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from tests.builders import PATIENCE
from tests.conftest import ROOT
from tests.end_to_end.processes import running_service, transports
from tests.end_to_end.test_uploads import eventually

SAMPLE = ROOT / "models" / "clinc150-banking"
SHORT = "what is my balance"
LONG = f"{SHORT} " * 2000
"""Document that is too long for the event loop and so waits for a thread."""


def asked(address: str, *queries: tuple[str, str]) -> list[str | None]:
    """Return the label of each query; ``None`` if there is no outcome."""
    requests = [pb.PredictorPredictRequest(runId=model, document=document) for model, document in queries]
    with grpc.insecure_channel(address) as channel:
        stub: Any = pb_grpc.PredictorStub(channel)
        answer = stub.PredictorPredictBatch(
            pb.PredictorPredictBatchRequest(requests=requests, ready_only=True), timeout=PATIENCE
        )
    return [result.response.label if result.WhichOneof("outcome") else None for result in answer.results]


@pytest.mark.parametrize("transport", transports())
def test_long_documents_of_a_model_in_memory_are_answered_and_those_of_another_are_to_be_asked_alone(
    transport: str, volume: Path, tmp_path: Path
) -> None:
    for name in ("ready", "cold"):
        shutil.copytree(SAMPLE, volume / name)
    flags = ("--preload", "ready")
    with running_service("predictor", volume, tmp_path, *flags, transport=transport) as predictor:
        address = predictor.address

        # Sent alone, a long document would cost a second trip, which would not show its frontend how much to admit.
        # Now and then the files of a model are due for a check, and the model is not ready.
        eventually(lambda: asked(address, ("ready", LONG), ("ready", LONG)) == ["balance", "balance"])
        eventually(lambda: asked(address, ("ready", SHORT), ("cold", SHORT)) == ["balance", None])
        assert asked(address, ("cold", SHORT), ("cold", LONG)) == [None, None]
