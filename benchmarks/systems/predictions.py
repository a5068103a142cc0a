"""Calls of this project's own API, which the bare grpcio peers and the re-created seed serve too."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Final

from benchmarks.calls import Call, WrongAnswer
from benchmarks.systems.base import check_label
from benchmarks.tenants import load_directly
from benchmarks.workload import BATCH_SIZE, DOCUMENT, LABEL, MODEL_ID, MODELS
from serving.domain.model_id import parse_model_id
from serving.domain.prediction import Prediction, Query
from serving.stubs import prediction_service_pb2 as pb

PREDICT: Final = "/prediction.PredictionService/Predict"
_PREDICT_BATCH: Final = "/prediction.PredictionService/PredictBatch"

_ACTIONS: Final = (
    "make a 10 minute timer", "what is my balance", "book a flight to paris", "how do i say hello in spanish",
    "why was my card declined", "what is the weather in london", "tell me a joke", "transfer money to savings",
)  # fmt: skip
_TIMES: Final = ("", " now", " please", " today", " tomorrow", " tonight", " this week", " on monday")


def predict_call(address: str, expected_response: str | None = None, model_id: str = MODEL_ID) -> Call:
    """Return a ``Predict`` call with the one document.

    Args:
        address: ``host:port`` of the server.
        expected_response: required value of ``response``; by default, the label's JSON.
        model_id: the model to query.
    """
    due = json.dumps({"result": LABEL}) if expected_response is None else expected_response

    def verify(answer: bytes) -> None:
        check_label(pb.PredictResponse.FromString(answer).response, due)

    return Call(address, PREDICT, pb.PredictRequest(runId=model_id, document=DOCUMENT).SerializeToString(), verify)


def batch_call(address: str) -> Call:
    """Return a ``PredictBatch`` call with many different documents, verified against the model's own answers."""
    documents = batch_documents()
    due = _labels(documents)

    def verify(answer: bytes) -> None:
        results = pb.PredictBatchResponse.FromString(answer).results
        if [result.response.label for result in results] != due:
            raise WrongAnswer("the labels of the batch are not the model's own")

    request = pb.PredictBatchRequest(
        requests=[pb.PredictRequest(runId=MODEL_ID, document=document) for document in documents]
    )
    return Call(address, _PREDICT_BATCH, request.SerializeToString(), verify, documents=len(documents))


def batch_documents() -> list[str]:
    """Return the documents of a batch, no two alike."""
    combined = itertools.product(_ACTIONS, _TIMES, ("", " if you can", " thanks", " for me"))
    return ["".join(parts) for parts in itertools.islice(combined, BATCH_SIZE)]


def _labels(documents: Sequence[str]) -> list[str]:
    model_id = parse_model_id(MODEL_ID)
    model = load_directly(MODELS, [model_id])[model_id]
    outcomes = model.predict([Query(model_id, document) for document in documents])
    return [outcome.label for outcome in outcomes if isinstance(outcome, Prediction)]
