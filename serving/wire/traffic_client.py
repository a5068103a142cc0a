"""Client for the counts of queries and answers of a predictor's models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from intent_serving_client.channels import PLAIN, ChannelOptions, open_channel
from intent_serving_client.peer import Peer
from serving.domain.answer_counts import AnswerCounts
from serving.domain.errors import ServingError
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc

_MAX_ANSWER_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class ModelTraffic:
    """The counts of one copy of a model."""

    id: str
    version: str
    counts: AnswerCounts
    seconds: float
    """Duration of the counting, in seconds."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {"id": self.id, "version": self.version, "seconds": self.seconds, "counts": self.counts.model_dump()}


def ask_traffic(
    address: str, *, model_id: str = "", limit: int = 0, timeout: float = 10.0, options: ChannelOptions = PLAIN
) -> tuple[ModelTraffic, ...]:
    """Return the counts of the predictor at ``address``, busiest models first.

    Args:
        address: address of the predictor.
        model_id: only this model, with an empty result if it has had no query yet; empty: all models.
        limit: maximum number of models; 0: all.
        timeout: timeout of the call, in seconds.
        options: TLS, and the caller's certificate and credential.

    Raises:
        ServingError: the call failed, or the answer is not understood.
    """
    options = replace(options, max_answer_bytes=_MAX_ANSWER_BYTES)
    with open_channel(address, options) as channel, Peer("predictor", address, options).errors(timeout):
        request = pb.TrafficRequest(runId=model_id, limit=limit)
        answer = pb_grpc.PredictorStub(channel).Traffic(request, timeout=timeout)
    try:
        return tuple(_traffic(model) for model in answer.models)
    except ValidationError as error:
        raise ServingError("the predictor's answer cannot be decoded; run both sides at the same version") from error


def _traffic(message: pb.ModelTraffic) -> ModelTraffic:
    counts = message.counts
    traffic = AnswerCounts(
        documents=counts.documents,
        empty_documents=counts.empty_documents,
        tokens=counts.tokens,
        unknown_tokens=counts.unknown_tokens,
        fallbacks=counts.fallbacks,
        confidence=tuple(counts.confidence),
        labels=dict(counts.labels),
    )
    return ModelTraffic(message.model.id, message.model.version, traffic, message.seconds)
