"""The frontend with the predictor inside, in one process: the same answers and statuses, without a hop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from serving.client import AsyncIntentClient, IntentClient, Prediction, Query
from serving.domain.errors import ServingError
from serving.domain.model_id import parse_model_id
from serving.stubs import open_inference_pb2, open_inference_pb2_grpc
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.volume.publishing import publish
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, running_service, transports
from tests.end_to_end.test_concurrency import direct_models, mixed_queries
from tests.samples import copy_samples

SAMPLE = ROOT / "models" / "clinc150-banking"
DOCUMENT = "what is my balance"


@pytest.fixture(scope="module", params=transports())
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("one-process")
    copy_samples(folder / "models")
    with running_service("model_service", folder / "models", folder, transport=request.param) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[IntentClient]:
    with IntentClient(service.address, timeout=30) as made:
        yield made


def volume(service: Service) -> Path:
    return service.log.parent / "models"


def models_in_memory(channel: grpc.Channel) -> set[str]:
    held = pb_grpc.PredictorStub(channel).Residency(pb.ResidencyRequest(), timeout=30)
    return {resident.model.id for resident in held.models}


async def test_a_thousand_concurrent_mixed_calls_give_the_answers_of_direct_inference(service: Service) -> None:
    models = direct_models(volume(service))
    queries = mixed_queries([*sorted(models), "no-such-model", "../etc"])[:1000]

    async with AsyncIntentClient(service.address, timeout=100) as client:
        answers = await asyncio.gather(
            *(client.predict(query.model_id, query.document) for query in queries), return_exceptions=True
        )

    for query, answer in zip(queries, answers, strict=True):
        if query.model_id not in models:
            assert isinstance(answer, ServingError)
            assert answer.code.name == ("NOT_FOUND" if query.model_id == "no-such-model" else "INVALID_ARGUMENT")
            continue
        (direct,) = models[query.model_id].predict([query])
        assert isinstance(direct, Prediction)
        assert isinstance(answer, Prediction)
        assert (answer.model_id, answer.label) == (query.model_id, direct.label)
        assert answer.score == pytest.approx(direct.score, abs=1e-5)


def test_a_batch_keeps_the_outcome_of_each(client: IntentClient) -> None:
    good, missing = client.predict_batch([Query("clinc150-banking", DOCUMENT), Query("no-such-model", DOCUMENT)])

    assert isinstance(good, Prediction)
    assert good.label == "balance"
    assert isinstance(missing, ServingError)
    assert missing.code is grpc.StatusCode.NOT_FOUND


def test_a_model_that_is_published_is_served_without_a_restart(service: Service, client: IntentClient) -> None:
    model_id = parse_model_id(f"published-{service.address.rpartition(':')[2]}")
    publish(SAMPLE, volume(service), model_id)

    assert client.predict(model_id, DOCUMENT).label == "balance"


def test_what_is_in_memory_can_be_asked_for(service: Service, client: IntentClient) -> None:
    client.predict("clinc150-banking", DOCUMENT)

    with grpc.insecure_channel(service.address) as channel:
        assert "clinc150-banking" in models_in_memory(channel)


def test_a_model_is_let_go_and_loaded_again_through_the_open_inference_protocol(
    service: Service, client: IntentClient
) -> None:
    client.predict("clinc150-banking", DOCUMENT)

    with grpc.insecure_channel(service.address) as channel:
        repository = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
        unload = open_inference_pb2.RepositoryModelUnloadRequest(model_name="clinc150-banking")
        repository.RepositoryModelUnload(unload, timeout=30)
        assert "clinc150-banking" not in models_in_memory(channel)

        load = open_inference_pb2.RepositoryModelLoadRequest(model_name="clinc150-banking")
        repository.RepositoryModelLoad(load, timeout=30)
        assert "clinc150-banking" in models_in_memory(channel)


@pytest.mark.parametrize("transport", transports())
def test_it_drains_and_exits_with_zero(tmp_path: Path, transport: str) -> None:
    with running_service("model_service", ROOT / "models", tmp_path, transport=transport) as running:
        with IntentClient(running.address, timeout=30) as client:
            assert client.predict("clinc150-banking", DOCUMENT).label == "balance"
        assert running.stop() == 0
