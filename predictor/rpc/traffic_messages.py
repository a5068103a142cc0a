"""Messages that list the traffic counts of models."""

from __future__ import annotations

import time
from collections.abc import Sequence

from predictor.inference.traffic_registry import CountedModel
from serving.stubs import prediction_service_pb2 as pb


def traffic_response(listed: Sequence[CountedModel]) -> pb.TrafficResponse:
    """Return the listing of these models, in their order."""
    now = time.monotonic()
    return pb.TrafficResponse(models=[traffic_message(counted, now) for counted in listed])


def traffic_message(counted: CountedModel, now: float) -> pb.ModelTraffic:
    """Return the message of one model; ``now`` is on the monotonic clock."""
    counts = counted.counter.snapshot()
    return pb.ModelTraffic(
        model=pb.ModelIdentity(id=counted.model_id, version=counted.version),
        counts=pb.TrafficCounts(
            documents=counts.documents,
            empty_documents=counts.empty_documents,
            tokens=counts.tokens,
            unknown_tokens=counts.unknown_tokens,
            fallbacks=counts.fallbacks,
            confidence=counts.confidence,
            labels=counts.labels,
        ),
        seconds=max(0.0, now - counted.began),
    )
