"""Client for the residency of a predictor's models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from intent_serving_client.channels import PLAIN, ChannelOptions, open_channel
from intent_serving_client.fields import from_fields
from intent_serving_client.peer import Peer
from serving.domain.residency import ModelResidency, ModelStatistics
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc

_COUNTERS: Final = ("hits", "misses", "loads", "load_seconds", "evictions", "eviction_age_seconds")


@dataclass(frozen=True, slots=True)
class ResidentModel:
    """A model in memory."""

    id: str
    version: str
    generation: int
    bytes: int
    idle_seconds: float
    leases: int
    hits: int
    pinned: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Residency:
    """The models in memory, most recently used first, and the counters since the predictor's start."""

    models: tuple[ResidentModel, ...]
    budget_bytes: int
    held_bytes: int
    resident_models: int
    counters: Mapping[str, float]
    failures: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def ask_residency(address: str, *, limit: int = 0, timeout: float = 10.0, options: ChannelOptions = PLAIN) -> Residency:
    """Return the residency at the predictor at ``address``.

    The result lists the ``limit`` most recently used models; all models if ``limit`` is 0.

    Raises:
        ServingError: the call failed.
    """
    with open_channel(address, options) as channel, Peer("predictor", address, options).errors(timeout):
        answer = pb_grpc.PredictorStub(channel).Residency(pb.ResidencyRequest(limit=limit), timeout=timeout)
    return Residency(
        tuple(from_fields(ResidentModel, each, id=each.model.id, version=each.model.version) for each in answer.models),
        answer.budget_bytes,
        answer.held_bytes,
        answer.resident_models,
        {name: getattr(answer.counters, name) for name in _COUNTERS},
        dict(answer.counters.failures),
    )


def model_residency_of(
    replica: str, message: pb.ResidentModel | None, statistics: ModelStatistics | None = None
) -> ModelResidency:
    """Return a model's residency as a replica reports it; without a ``message`` the model is not in memory there."""
    if message is None:
        return ModelResidency(replica, resident=False, statistics=statistics)
    return from_fields(ModelResidency, message, replica=replica, resident=True, statistics=statistics)


def statistics_of(message: pb.ModelTraffic) -> ModelStatistics:
    """Return the statistics of a model that a replica has counted."""
    return from_fields(ModelStatistics, message.counts, seconds=message.seconds)
