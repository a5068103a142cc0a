"""Metrics of real services: real calls over both transports, scraped over HTTP, read with Prometheus's own client."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.tenants import make_tenants
from intent_serving_client.version import VERSION
from serving.client import IntentClient, Query
from serving.domain.errors import InvalidRequest, ModelNotFound, ServingError
from serving.domain.model_id import ModelId
from serving.volume.model_store import WEIGHTS_FILE
from serving.volume.publishing import publish
from tests.builders import free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, running_service, stack, transports
from tests.end_to_end.test_uploads import eventually
from tests.exposition import Exposition, fallen, faults_found

SAMPLE = ROOT / "models" / "clinc150-banking"
QUESTION = "what is my balance"
MOST_SERIES = 2000
TENANTS = 10_000
BATCH = 500


@dataclass(frozen=True)
class Watched:
    """Services with metrics: a frontend and a predictor, or one process that is both."""

    frontend: Service
    ports: dict[str, int]
    models: Path

    def told(self, service: str) -> Exposition:
        return Exposition.at(self.ports.get(service, self.ports.get("model_service", 0)))


@pytest.fixture(scope="module", params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["two processes", "one process"])
def watched(
    request: pytest.FixtureRequest, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    with watching(tmp_path_factory.mktemp("watched"), transport, one=request.param == "one process") as it:
        publish(SAMPLE, it.models, ModelId("a"))
        yield it


@contextmanager
def watching(folder: Path, transport: str, *flags: str, one: bool) -> Iterator[Watched]:
    """Run services with metrics; yield them ready, and end them after the block."""
    models = folder / "models"
    models.mkdir()
    names = ["model_service"] if one else ["frontend", "predictor"]
    ports = {name: free_port() for name in names}
    of_each = {name: ("--metrics-port", str(port), "--freshness-seconds", "0", *flags) for name, port in ports.items()}
    if one:
        with running_service(
            "model_service", models, folder, *of_each["model_service"], transport=transport
        ) as service:
            yield Watched(service, ports, models)
    else:
        both = stack(models, folder, frontend=of_each["frontend"], predictor=of_each["predictor"], transport=transport)
        with both as services:
            yield Watched(services.frontend, ports, models)


def counted(told: Exposition, name: str) -> dict[str, float]:
    """Return the number of calls of ``PredictionService/name`` that ended with each code."""
    ends = told.values("intent_request_seconds_count")
    return {code: count for (code, method), count in ends.items() if method == f"PredictionService/{name}"}


def test_calls_are_told_by_method_and_code(watched: Watched) -> None:
    before = counted(watched.told("frontend"), "Predict")
    with IntentClient(watched.frontend.address) as client:
        for _ in range(3):
            client.predict("a", QUESTION)
        for model_id, document, kind in (
            ("nobody", QUESTION, ModelNotFound),
            ("../etc", QUESTION, InvalidRequest),
            ("a", "x" * (1 << 17), InvalidRequest),
        ):
            with pytest.raises(kind):
                client.predict(model_id, document)
        client.predict_batch([Query("a", QUESTION)] * 5)
        client.explain("a", QUESTION)
    told = watched.told("frontend")
    after = counted(told, "Predict")
    assert {code: count - before.get(code, 0) for code, count in after.items()} == {
        "OK": 3,
        "NOT_FOUND": 1,
        "INVALID_ARGUMENT": 2,
    }
    assert counted(told, "PredictBatch") == {"OK": 1}
    labels = {"method": "PredictionService/PredictBatch", "code": "OK"}
    assert told.value("intent_request_seconds_bucket", le="+Inf", **labels) == 1
    assert 0 < told.value("intent_request_seconds_sum", **labels) < 30
    assert told.value("intent_requests_in_flight") == 0


def test_queries_are_told_on_their_way_and_where_they_are_answered(watched: Watched) -> None:
    publish(SAMPLE, watched.models, ModelId("asked"))
    with IntentClient(watched.frontend.address) as client:
        before, cache_before = watched.told("frontend"), watched.told("predictor")
        for _ in range(4):
            client.predict("asked", QUESTION)
        client.predict_batch([Query("asked", QUESTION)] * 6)
        after, cache = watched.told("frontend"), watched.told("predictor")
    assert after.value("intent_model_requests_total", model="asked") == 10
    assert cache.value("intent_model_documents_total", model="asked") == 10
    # The queries of the batch do not wait for those of other callers.
    for name in ("intent_queue_seconds_count", "intent_batch_size_sum"):
        assert after.value(name) - before.value(name) == 4, name
    assert after.value("intent_queue_length") == 0
    assert cache.value("intent_cache_loads_total") - cache_before.value("intent_cache_loads_total") == 1
    assert cache.value("intent_cache_load_seconds_count") == cache.value("intent_cache_loads_total")
    assert cache.value("intent_cache_misses_total") - cache_before.value("intent_cache_misses_total") == 1
    assert cache.value("intent_cache_bytes") > cache_before.value("intent_cache_bytes")
    assert cache.value("intent_cache_models") == cache_before.value("intent_cache_models") + 1


def test_a_bad_copy_in_the_place_of_a_good_one_is_told(watched: Watched) -> None:
    publish(SAMPLE, watched.models, ModelId("spoilt"))
    with IntentClient(watched.frontend.address) as client:
        label = client.predict("spoilt", QUESTION).label
        assert watched.told("predictor").value("intent_replacements_refused_total") == 0
        staged = watched.models / ".spoilt"
        staged.write_bytes(b"garbage")
        staged.replace(watched.models / "spoilt" / WEIGHTS_FILE)

        def is_told() -> bool:
            assert client.predict("spoilt", QUESTION).label == label
            return watched.told("predictor").value("intent_replacements_refused_total") == 1

        eventually(is_told)


def test_requests_of_rest_are_told_by_their_path(watched: Watched, transport: str) -> None:
    if transport != "http2":
        pytest.skip("the REST API is served on http2 only")
    document = {"name": "document", "shape": [1], "datatype": "BYTES", "data": [QUESTION]}
    url = f"http://{watched.frontend.address}/v2/models/a/infer"
    with urllib.request.urlopen(url, json.dumps({"inputs": [document]}).encode(), timeout=30) as answer:
        assert answer.status == 200
    ends = watched.told("frontend").values("intent_request_seconds_count")
    assert ends["OK", "POST /v2/models/{model}/infer"] == 1


def test_services_tell_what_they_are_and_what_they_take(watched: Watched) -> None:
    for service in watched.ports:
        told = watched.told(service)
        assert list(told.values("intent_build_info")) == [(service, VERSION)]
        assert told.value("process_resident_memory_bytes") > 10 << 20
        assert told.value("process_open_fds") > 5


def test_nothing_falls_and_the_tool_of_prometheus_finds_no_fault(watched: Watched) -> None:
    before = {service: watched.told(service) for service in watched.ports}
    with IntentClient(watched.frontend.address) as client:
        client.predict_batch([Query("a", QUESTION)] * 20)
        client.predict("a", QUESTION)
    after = {service: watched.told(service) for service in watched.ports}
    for service, told in after.items():
        assert fallen(before[service], told) == []
    assert faults_found(told.text for told in after.values()) == ""


def test_names_that_others_know_are_told_where_they_are_wanted(transport: str, tmp_path: Path) -> None:
    with watching(tmp_path, transport, "--metrics-names", "triton,modelmesh", one=False) as it:
        publish(SAMPLE, it.models, ModelId("a"))
        with IntentClient(it.frontend.address) as client:
            for _ in range(3):
                client.predict("a", QUESTION)
            client.predict_batch([Query("a", QUESTION)] * 2)
        frontend, predictor = it.told("frontend"), it.told("predictor")
    labels = {"model": "a", "version": "1.0"}
    assert frontend.value("nv_inference_request_success", **labels) == 4
    assert frontend.value("nv_inference_count", **labels) == 5
    assert frontend.value("nv_inference_exec_count", **labels) == 4
    request, engine = (
        frontend.value(f"nv_inference_{part}_duration_us", **labels) for part in ("request", "compute_infer")
    )
    assert 0 < engine <= request
    assert (
        frontend.value("modelmesh_api_request_milliseconds_count", method="PredictionService/Predict", code="OK") == 3
    )
    assert predictor.value("modelmesh_instance_models_total") == 1
    assert predictor.value("modelmesh_loadmodel_milliseconds_count") == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("one", [False, True], ids=["two processes", "one process"])
def test_ten_thousand_tenants_make_at_most_two_thousand_series(
    one: bool, transport: str, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    with watching(tmp_path, transport, "--metrics-names", "triton,modelmesh", one=one) as it:
        tenants = make_tenants(SAMPLE, it.models, tenants=TENANTS, models=4)
        before = {service: it.told(service) for service in it.ports}
        with IntentClient(it.frontend.address, timeout=120) as client:
            for start in range(0, TENANTS, BATCH):
                asked = tenants[start : start + BATCH]
                queries = [Query(model_id, QUESTION) for model_id in asked]
                # Some models are busier than others, and some ids do not exist.
                queries += queries[:50] * 3 + [Query(f"nobody-{start + number}", QUESTION) for number in range(50)]
                outcomes = client.predict_batch(queries)
                failures = [outcome for outcome in outcomes if isinstance(outcome, ServingError)]
                assert len(failures) == 50
                for model_id in asked[:5]:
                    client.predict(model_id, QUESTION)
                after = {service: it.told(service) for service in it.ports}
                assert [fallen(before[service], after[service]) for service in after] == [[]] * len(after)
                before = after
    held = after["model_service" if one else "predictor"].value("intent_cache_models")
    for service, told in after.items():
        figure(f"{TENANTS:,} tenants asked on {transport}: {len(told.series)} series of the {service}, {held:.0f} held")
        assert len(told.series) <= MOST_SERIES
        assert len(told.values("intent_model_requests_total")) <= 20
