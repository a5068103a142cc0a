"""Messages that list the models in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from predictor.cache.residency import Resident, ResidentModels
from predictor.model.intent_model import IntentModel
from serving.domain.model_id import parse_model_id
from serving.stubs import prediction_service_pb2 as pb


def residency_response(
    residents: ResidentModels[IntentModel],
    model_id: str,
    limit: int,
    may_see: Callable[[str], bool] | None = None,
) -> pb.ResidencyResponse:
    """Return the listing of one model, or of the most recently used models.

    Args:
        residents: the models in memory.
        model_id: the only model to list; empty: the most recently used ones.
        limit: maximum number of models to list if ``model_id`` is empty; 0: all.
        may_see: returns whether a model is listed if ``model_id`` is empty; without it, all models are.

    Raises:
        InvalidModelId: ``model_id`` is not a valid model id.
    """
    counted = residents.statistics
    now = time.monotonic()
    return pb.ResidencyResponse(
        models=[
            resident_message(resident, residents, now) for resident in _listed(residents, model_id, limit, may_see)
        ],
        budget_bytes=residents.budget,
        held_bytes=residents.bytes_held,
        resident_models=len(residents),
        counters=pb.CacheCounters(
            hits=counted.hits,
            misses=counted.misses,
            loads=counted.loads,
            load_seconds=counted.load_seconds.total,
            evictions=counted.evictions,
            eviction_age_seconds=counted.eviction_age_seconds.total,
            failures=counted.failures,
        ),
    )


def _listed(
    residents: ResidentModels[IntentModel], model_id: str, limit: int, may_see: Callable[[str], bool] | None
) -> Sequence[Resident[IntentModel]]:
    if not model_id:
        every = residents.residents()
        seen = every if may_see is None else [resident for resident in every if may_see(resident.model_id)]
        return seen[: limit or None]
    resident = residents.seen(parse_model_id(model_id))
    return [] if resident is None else [resident]


def resident_message(
    resident: Resident[IntentModel], residents: ResidentModels[IntentModel], now: float
) -> pb.ResidentModel:
    """Return the message of a model in memory; ``now`` is on the monotonic clock."""
    return pb.ResidentModel(
        model=pb.ModelIdentity(id=resident.model_id, version=resident.model.version),
        generation=resident.generation,
        bytes=resident.size,
        idle_seconds=max(0.0, now - resident.last_used),
        leases=resident.leases,
        hits=resident.hits,
        pinned=residents.is_pinned(resident.model_id),
    )
