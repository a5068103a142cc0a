"""Construction of the tenants' quotas from the settings."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.registry import Collector

from frontend.quotas.ledger import Ledger
from frontend.quotas.local import LocalLedger
from frontend.quotas.metrics import QuotaCollector
from frontend.quotas.quotas import QuotaCounters, Quotas
from frontend.quotas.shared import Participant, SharedLedger
from frontend.settings import EngineSettings
from serving.call.limits import NO_LIMITS


def quotas_of(settings: EngineSettings) -> Quotas | None:
    """Return the quotas; ``None`` if no tenant has limits and no identity may have limits of its own."""
    limits = settings.tenant_limits()
    return None if limits == NO_LIMITS and settings.access_file is None else Quotas(limits, _ledger_of(settings))


def quota_collectors(quotas: Quotas | None, settings: EngineSettings) -> Sequence[Collector]:
    """Return the collectors of the quota metrics."""
    counters = QuotaCounters() if quotas is None else quotas.counters
    return [QuotaCollector(counters, settings.metrics_models)]


def _ledger_of(settings: EngineSettings) -> Ledger:
    membership = settings.membership
    if membership is None:
        return LocalLedger()
    participant = Participant(membership.index, membership.workers, membership.board.generations)
    return SharedLedger(membership.memory, participant)
