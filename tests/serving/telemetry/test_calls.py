from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from intent_serving_client.version import VERSION
from serving.runtime.assembly.metrics import observed
from serving.runtime.workload import Workload
from serving.telemetry.calls import MOST_ENDS, OTHERS, SECONDS, CallCollector, CallTimes
from serving.telemetry.modelmesh import InferenceCalls
from tests.builders import free_port, server_settings
from tests.exposition import Exposition, fallen

PREDICT = "prediction.PredictionService/Predict"
SERIES_OF_ONE = len(SECONDS) + 3


def told(times: CallTimes, in_flight: int = 0) -> Exposition:
    return Exposition.of(CallCollector(times, lambda: in_flight))


def counts(times: CallTimes) -> dict[tuple[str, ...], float]:
    """Return the number of reported calls by code and method."""
    return told(times).values("intent_request_seconds_count")


def end(times: CallTimes, method: str, code: StatusCode, seconds: float = 0.003) -> None:
    times.ended(method, code, seconds)


def test_calls_are_counted_by_method_and_code_with_their_seconds() -> None:
    times = CallTimes()
    for seconds in (0.0005, 0.003, 20.0):
        end(times, PREDICT, StatusCode.OK, seconds)
    end(times, PREDICT, StatusCode.NOT_FOUND)
    end(times, "POST /v2/models/{model}/infer", StatusCode.OK)
    assert counts(times) == {
        ("OK", "PredictionService/Predict"): 3,
        ("NOT_FOUND", "PredictionService/Predict"): 1,
        ("OK", "POST /v2/models/{model}/infer"): 1,
    }
    labels = {"code": "OK", "method": "PredictionService/Predict"}
    assert told(times).value("intent_request_seconds_sum", **labels) == pytest.approx(20.0035)
    buckets = {
        bound: told(times).value("intent_request_seconds_bucket", le=bound, **labels) for bound in ("0.0005", "10")
    }
    assert buckets == {"0.0005": 1, "10": 2}


def test_calls_beyond_a_number_of_ends_share_a_histogram_a_code_and_none_is_lost() -> None:
    times = CallTimes()
    for number in range(1000):
        for code in (StatusCode.OK, StatusCode.NOT_FOUND, StatusCode.OK):
            end(times, f"prediction.Service/Method{number}", code)
    told_counts = counts(times)
    assert len(told_counts) == MOST_ENDS + 2
    assert sum(told_counts.values()) == 3000
    assert told_counts["OK", OTHERS] == 2 * (1000 - MOST_ENDS // 2)


@given(st.lists(st.tuples(st.integers(0, 60), st.sampled_from(list(StatusCode)), st.floats(0, 30)), max_size=300))
def test_no_counter_falls_and_there_is_a_most_of_series(ends: list[tuple[int, StatusCode, float]]) -> None:
    times = CallTimes()
    before = told(times)
    for number, (method, code, seconds) in enumerate(ends):
        end(times, f"prediction.Service/Method{method}", code, seconds)
        if number % 50 == 0:
            after = told(times)
            assert fallen(before, after) == []
            before = after
    assert len(told(times).series) <= (MOST_ENDS + len(StatusCode)) * SERIES_OF_ONE + 1


def test_names_of_modelmesh_have_milliseconds_and_calls_for_inference_alone() -> None:
    times = CallTimes()
    end(times, PREDICT, StatusCode.OK, 0.25)
    end(times, "prediction.Predictor/PredictorPredictBatch", StatusCode.UNAVAILABLE, 0.5)
    end(times, "inference.GRPCInferenceService/ServerReady", StatusCode.OK)
    exposition = Exposition.of(InferenceCalls(times))
    assert exposition.values("modelmesh_api_request_milliseconds_sum") == {("OK", "PredictionService/Predict"): 250}
    assert exposition.values("modelmesh_invoke_model_milliseconds_sum") == {
        ("UNAVAILABLE", "Predictor/PredictorPredictBatch"): 500
    }


# In a service.


def a_workload() -> Workload:
    async def nothing() -> None:
        pass

    return Workload([], nothing, nothing)


def test_without_a_port_nothing_is_counted(tmp_path: Path) -> None:
    it = a_workload()
    assert observed(it, server_settings(tmp_path), "tests") is it
    assert it.guards.observer is None


async def test_a_service_tells_of_its_calls_its_process_and_itself(tmp_path: Path) -> None:
    port = free_port()
    it = observed(a_workload(), server_settings(tmp_path, metrics_port=port), "tests")
    assert it.guards.observer is not None
    it.guards.observer.ended(PREDICT, StatusCode.OK, 0.1)
    await it.get_ready()
    try:
        exposition = await asyncio.to_thread(Exposition.at, port)
    finally:
        await it.close()
    assert exposition.values("intent_request_seconds_count") == {("OK", "PredictionService/Predict"): 1}
    assert list(exposition.values("intent_build_info")) == [("tests", VERSION)]
    assert exposition.value("process_resident_memory_bytes") > 1 << 20
    assert {"python_info", "python_gc_collections_total", "process_cpu_seconds_total"} <= exposition.names
