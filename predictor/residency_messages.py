"""What is in memory, as the message that lists it."""

from __future__ import annotations

import time

from predictor.intent_model import IntentModel
from predictor.residency import Resident, ResidentModels
from serving.stubs import prediction_service_pb2 as pb


def residency_response(residents: ResidentModels[IntentModel], limit: int) -> pb.ResidencyResponse:
    """Return the listing of the ``limit`` most recently used models, of all where it is 0."""
    listed = residents.residents()[: limit or None]
    counted = residents.statistics
    now = time.monotonic()
    return pb.ResidencyResponse(
        models=[_resident_message(resident, now, pinned=residents.is_pinned(resident.model_id)) for resident in listed],
        budget_bytes=residents.budget,
        held_bytes=residents.bytes_held,
        resident_models=len(residents),
        counters=pb.CacheCounters(
            hits=counted.hits,
            misses=counted.misses,
            loads=counted.loads,
            load_seconds=counted.load_seconds,
            evictions=counted.evictions,
            eviction_age_seconds=counted.eviction_age_seconds,
            failures=counted.failures,
        ),
    )


def _resident_message(resident: Resident[IntentModel], now: float, *, pinned: bool) -> pb.ResidentModel:
    return pb.ResidentModel(
        model=pb.ModelIdentity(id=resident.model_id, version=resident.model.version),
        generation=resident.generation,
        bytes=resident.size,
        idle_seconds=max(0.0, now - resident.last_used),
        leases=resident.leases,
        hits=resident.hits,
        pinned=pinned,
    )
