"""Rules that merge the metrics of workers, and the metrics that cover only the busiest models or tenants.

Counters and histograms are summed. A gauge is an amount, a state or a property of one process, and its name alone does
not say which: a gauge that is missing here is exported for each worker.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


class Rule(enum.Enum):
    """Treatment of the values of several workers."""

    SUM = enum.auto()
    GREATEST = enum.auto()
    LEAST = enum.auto()
    MEAN = enum.auto()
    EACH = enum.auto()
    """One series for each worker, with the label ``worker``."""


WORKER_LABEL: Final = "worker"

GAUGES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "intent_requests_in_flight": Rule.SUM,
        "intent_requests_waiting": Rule.SUM,
        "intent_concurrency_limit": Rule.SUM,
        "intent_queue_length": Rule.SUM,
        # A worker notices a change of a release only once a call asks for its name.
        "intent_release_revision": Rule.GREATEST,
        "intent_cache_loads_waiting": Rule.SUM,
        "intent_cache_models": Rule.SUM,
        "intent_cache_bytes": Rule.SUM,
        "intent_cache_budget_bytes": Rule.SUM,
        # All workers share the same limit.
        "intent_memory_limit_bytes": Rule.LEAST,
        # Each worker compares only the documents that it has seen; the greatest drift found is a justified finding.
        "intent_model_drift": Rule.GREATEST,
        "intent_model_drift_verdict": Rule.GREATEST,
        "intent_certificate_expiry_seconds": Rule.LEAST,
        "intent_model_folder_readable": Rule.LEAST,
        "modelmesh_models_loaded_total": Rule.SUM,
        "modelmesh_instance_models_total": Rule.SUM,
        "modelmesh_instance_capacity_bytes": Rule.SUM,
        "modelmesh_instance_used_bytes": Rule.SUM,
        # A share of the capacity, which is equal in all workers.
        "modelmesh_instance_used_bps": Rule.MEAN,
        "python_info": Rule.GREATEST,
        "process_virtual_memory_bytes": Rule.EACH,
        "process_resident_memory_bytes": Rule.EACH,
        "process_start_time_seconds": Rule.EACH,
        "process_open_fds": Rule.EACH,
        "process_max_fds": Rule.EACH,
    }
)

_COUNTERS_OF_EACH: Final = frozenset({"process_cpu_seconds"})


@dataclass(frozen=True, slots=True)
class Ranking:
    """Metrics of the busiest models, or tenants, which are chosen again at every scrape."""

    subject: tuple[str, ...]
    """Labels that name the model, or tenant."""
    counter: str
    """Sample whose sum ranks the subjects; if empty, they keep the order in which workers export them."""


_QUERIES: Final = Ranking(("model",), "intent_model_requests_total")
_TRITON: Final = Ranking(("model", "version"), "nv_inference_request_success")
_TRAFFIC: Final = Ranking(("model",), "intent_model_documents_total")
_TRIALS: Final = Ranking(("model",), "intent_release_answers_total")
_RELEASES: Final = Ranking(("model",), "")
_REFUSALS: Final = Ranking(("tenant",), "intent_quota_refusals_total")
_STEPS: Final = Ranking(("model", "step"), "intent_pipeline_step_documents_total")

RANKED: Final[Mapping[str, Ranking]] = MappingProxyType(
    {
        "intent_model_requests": _QUERIES,
        "nv_inference_request_success": _TRITON,
        "nv_inference_request_failure": _TRITON,
        "nv_inference_count": _TRITON,
        "nv_inference_exec_count": _TRITON,
        "nv_inference_request_duration_us": _TRITON,
        "nv_inference_queue_duration_us": _TRITON,
        "nv_inference_compute_infer_duration_us": _TRITON,
        "intent_model_documents": _TRAFFIC,
        "intent_model_empty_documents": _TRAFFIC,
        "intent_model_tokens": _TRAFFIC,
        "intent_model_unknown_tokens": _TRAFFIC,
        "intent_model_fallbacks": _TRAFFIC,
        "intent_model_confidence": _TRAFFIC,
        "intent_model_labels": _TRAFFIC,
        "intent_model_drift": _TRAFFIC,
        "intent_model_drift_verdict": _TRAFFIC,
        "intent_release_answers": _TRIALS,
        "intent_release_errors": _TRIALS,
        "intent_release_compared": _TRIALS,
        "intent_release_agreed": _TRIALS,
        "intent_release_skipped": _TRIALS,
        "intent_release_revision": _RELEASES,
        "intent_quota_refusals": _REFUSALS,
        "intent_pipeline_step_documents": _STEPS,
        "intent_pipeline_step_seconds": _STEPS,
    }
)


def rule_of(name: str, kind: str) -> Rule:
    """Return the rule of a metric of this name and type."""
    if kind == "gauge":
        return GAUGES.get(name, Rule.EACH)
    if kind == "info":
        return Rule.GREATEST
    return Rule.EACH if name in _COUNTERS_OF_EACH else Rule.SUM
