"""Traffic of models: counted by real services, queried over gRPC and scraped over HTTP."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.domain.errors import InvalidRequest, Unavailable
from serving.domain.model_id import ModelId
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.volume.publishing import publish
from serving.wire.traffic_client import ModelTraffic, ask_traffic
from tests.builders import free_port, refusing_address
from tests.conftest import ROOT
from tests.end_to_end.processes import START_SECONDS, Service, grpcurl, running_service, start, transports
from tests.end_to_end.test_uploads import eventually

SAMPLE = ROOT / "models" / "clinc150-banking"
QUESTION = "what is my balance"
UNKNOWN = "xyzzy plugh"


@dataclass(frozen=True)
class Counting:
    """A service that counts, and the port of its metrics."""

    service: Service
    metrics: int

    @property
    def models(self) -> Path:
        return self.service.log.parent / "models"

    def traffic(self, model_id: str) -> ModelTraffic | None:
        found = ask_traffic(self.service.address, model_id=model_id)
        return found[0] if found else None

    def scraped(self, name: str) -> dict[str, float]:
        """Return the values of a metric by model."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {sample.labels.get("model", ""): sample.value for sample in samples if sample.name == name}


@pytest.fixture(scope="module", params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["predictor", "model_service"])
def counting(
    request: pytest.FixtureRequest, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Counting]:
    folder = tmp_path_factory.mktemp("counting")
    (folder / "models").mkdir()
    port = free_port()
    flags = ("--metrics-port", str(port), "--freshness-seconds", "0")
    with running_service(request.param, folder / "models", folder, *flags, transport=transport) as service:
        yield Counting(service, port)


def published(counting: Counting, name: str, *, replace: bool = False) -> str:
    """Put a copy of the sample on the volume under its own name."""
    publish(SAMPLE, counting.models, ModelId(name), replace=replace)
    return name


def ask(counting: Counting, model_id: str, *documents: str) -> None:
    requests = [pb.PredictorPredictRequest(runId=model_id, document=document) for document in documents]
    with grpc.insecure_channel(counting.service.address) as channel:
        stub = pb_grpc.PredictorStub(channel)
        for request in requests[:1]:
            stub.PredictorPredict(request, timeout=30)
        answer = stub.PredictorPredictBatch(pb.PredictorPredictBatchRequest(requests=requests[1:]), timeout=30)
    assert all(result.HasField("response") for result in answer.results)


def test_every_answer_is_counted_alone_in_batches_and_in_threads(counting: Counting) -> None:
    model_id = published(counting, "counted")
    ask(counting, model_id, QUESTION, QUESTION, UNKNOWN, "", QUESTION * 1000)
    found = counting.traffic(model_id)
    assert found is not None
    counts = found.counts
    assert (found.id, found.version) == (model_id, "1.0")
    assert found.seconds >= 0
    assert (counts.documents, counts.empty_documents) == (5, 2)
    assert counts.unknown_tokens >= 2
    assert counts.tokens - counts.unknown_tokens >= 8
    assert sum(counts.labels.values()) == sum(counts.confidence) == 5
    assert counts.labels["balance"] >= 2


def test_counts_outlive_a_model_that_is_let_go_and_begin_anew_with_another_copy(counting: Counting) -> None:
    model_id = published(counting, "let-go")
    ask(counting, model_id, QUESTION)
    with grpc.insecure_channel(counting.service.address) as channel:
        assert pb_grpc.PredictorStub(channel).Unload(pb.UnloadRequest(runId=model_id), timeout=30).was_resident
    ask(counting, model_id, QUESTION)
    found = counting.traffic(model_id)
    assert found is not None
    assert found.counts.documents == 2

    published(counting, model_id, replace=True)
    eventually(lambda: documents_after_a_question(counting, model_id) <= 2)
    assert counting.scraped("intent_documents_total")[""] >= 3


def documents_after_a_question(counting: Counting, model_id: str) -> int:
    ask(counting, model_id, QUESTION)
    found = counting.traffic(model_id)
    return found.counts.documents if found else 0


def test_the_busiest_come_first_and_as_many_as_are_wanted(counting: Counting) -> None:
    most, fewer = published(counting, "most"), published(counting, "fewer")
    ask(counting, most, *[QUESTION] * 60)
    ask(counting, fewer, *[QUESTION] * 50)
    assert [found.id for found in ask_traffic(counting.service.address, limit=2)] == [most, fewer]
    assert len(ask_traffic(counting.service.address)) >= 2


def test_a_model_that_was_not_asked_has_no_traffic_and_what_is_no_id_is_refused(counting: Counting) -> None:
    assert counting.traffic("never-asked") is None
    with pytest.raises(InvalidRequest, match="runId"):
        counting.traffic("../etc")


def test_a_scrape_tells_what_the_call_tells(counting: Counting) -> None:
    model_id = published(counting, "scraped")
    ask(counting, model_id, *[QUESTION] * 70, UNKNOWN)
    found = counting.traffic(model_id)
    assert found is not None
    assert counting.scraped("intent_model_documents_total")[model_id] == found.counts.documents == 71
    assert counting.scraped("intent_model_unknown_tokens_total")[model_id] == found.counts.unknown_tokens
    assert counting.scraped("intent_model_confidence_count")[model_id] == 71
    # The total over all models is at least as high, and has no model label.
    every = counting.scraped("intent_documents_total")
    assert set(every) == {""}
    assert every[""] >= 71


def test_grpcurl_shows_it(counting: Counting) -> None:
    model_id = published(counting, "shown")
    ask(counting, model_id, QUESTION)
    request = json.dumps({"runId": model_id})
    address = counting.service.address
    command = [grpcurl(), "-plaintext", "-d", request, address, "prediction.Predictor/Traffic"]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=30).stdout)
    (model,) = answer["models"]
    assert model["model"]["id"] == model_id
    assert model["counts"]["documents"] == "1"


@pytest.mark.parametrize("name", ["predictor", "model_service"])
def test_metrics_end_with_the_service(tmp_path: Path, transport: str, name: str) -> None:
    port = free_port()
    with running_service(name, ROOT / "models", tmp_path, "--metrics-port", str(port), transport=transport) as service:
        it = Counting(service, port)
        assert it.scraped("intent_documents_total") == {"": 0}
        assert service.stop() == 0
    with pytest.raises(OSError, match="refused"):
        it.scraped("intent_documents_total")


def test_a_service_whose_metrics_cannot_be_told_does_not_start(tmp_path: Path, transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = ("--metrics-port", str(taken.getsockname()[1]))
        service = start("predictor", ROOT / "models", tmp_path, *flags, transport=transport)
        try:
            assert service.process.wait(START_SECONDS) == 1
        finally:
            service.kill()
    assert "for metrics" in service.log.read_text()


def test_a_predictor_that_does_not_answer_is_told_as_such() -> None:
    with pytest.raises(Unavailable, match="nothing listens on port"):
        ask_traffic(refusing_address(), timeout=5)
