from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import structlog
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode

from intent_serving_client.messages import (
    explain_request_of,
    explained_prediction_of,
    outcomes_of,
    prediction_of,
    request_of,
)
from predictor.cache.model_manager import ModelManager, ModelSource
from predictor.cache.residency import ResidentModels
from predictor.inference.engine import InferenceEngine
from predictor.inference.traffic_registry import TrafficRegistry
from predictor.model.intent_model import IntentModel
from predictor.rpc.servicer import predictor_service
from serving.domain.errors import InvalidRequest, ModelNotFound, QuotaExceeded, ServingError, Status, status_of
from serving.domain.explanation import Explanation, LabelExplanation
from serving.domain.prediction import Fallback, Outcome, Prediction, Query, ScoredLabel
from serving.domain.query_limits import QueryLimits
from serving.stubs import prediction_service_pb2 as pb
from serving.wire.messages import (
    batch_response_of,
    delegated_query_of,
    explain_response_of,
    predictor_batch_response_of,
    query_of,
    query_to_explain,
    response_of,
)
from tests.builders import channel_to, hosted, hosted_frontend, publish
from tests.fakes.backend import FakeBackend
from tests.fakes.intent_model import FakeIntentModel
from tests.fakes.model_source import source_of

PREDICTION = Prediction("é😀", 0.5, (ScoredLabel("é😀", 0.5), ScoredLabel("b", 0.25)), "model-1", "1.0")

FELL_BACK = Prediction("oos", 0.0, (), "model-1", "1.0", Fallback(ScoredLabel("é😀", 0.25), 0.7))

EXPLANATION = Explanation(
    ("é😀", "the", '"th'),
    (0,),
    (LabelExplanation("b", 1.1, 0.1, (0.0, 0.75, 0.25)), LabelExplanation("c", -1e-300, 0.0, (0.0, -0.0, -1e-300))),
    1.7,
)
EXPLAINED = FELL_BACK._replace(explanation=EXPLANATION)

NOTHING_TO_EXPLAIN = PREDICTION._replace(explanation=Explanation((), (), (LabelExplanation("", 0.0, 0.0, ()),), 1.0))


KINDS: list[Any] = [(pb.PredictRequest, query_of), (pb.PredictorPredictRequest, delegated_query_of)]


@pytest.mark.parametrize(("kind", "read"), KINDS)
def test_a_query_survives_the_way_into_a_request_and_back(kind: Any, read: Any) -> None:
    for query in QUERIES:
        assert read(kind.FromString(request_of(kind, query).SerializeToString())) == query


def test_the_key_goes_to_the_frontend_and_the_caller_to_the_predictor() -> None:
    query = Query("model-1", "x", key="k", caller="c")
    asked = request_of(pb.PredictRequest, query)
    delegated = request_of(pb.PredictorPredictRequest, query)
    assert query_of(asked) == query._replace(caller="")
    assert delegated_query_of(delegated) == query._replace(key="")
    assert query_to_explain(explain_request_of(query._replace(explain=()))).key == "k"


QUERIES = [
    Query("model-1", "é😀 \0 text", 3),
    Query("model-1", "x", threshold=0.0),
    Query("model-1", "x", threshold=0.7, explain=()),
    Query("model-1", "x", threshold=1e-7, explain=("é😀", "", "b", "b")),
]


def test_a_query_survives_the_way_into_a_request_for_an_explanation_and_back() -> None:
    for query in QUERIES[2:]:
        request = pb.ExplainRequest.FromString(explain_request_of(query).SerializeToString())
        assert query_to_explain(request) == query


@pytest.mark.parametrize(("kind", "read"), KINDS)
def test_labels_to_explain_are_nothing_without_the_wish_to_explain(kind: Any, read: Any) -> None:
    assert read(kind(runId="a", document="x", explain_labels=["b"])).explain is None


@pytest.mark.parametrize("kind", [pb.PredictResponse, pb.PredictorPredictResponse])
@pytest.mark.parametrize("given", [PREDICTION, FELL_BACK, EXPLAINED, NOTHING_TO_EXPLAIN], ids=lambda each: each.label)
def test_a_prediction_survives_the_way_into_a_response_and_back(kind: Any, given: Prediction) -> None:
    response = kind.FromString(response_of(kind, given).SerializeToString())
    assert prediction_of(response) == given
    assert json.loads(response.response) == {"result": given.label}


@pytest.mark.parametrize("given", [EXPLAINED, NOTHING_TO_EXPLAIN], ids=lambda each: each.label)
def test_a_prediction_survives_the_way_into_a_response_to_explain_and_back(given: Prediction) -> None:
    response = pb.ExplainResponse.FromString(explain_response_of(given).SerializeToString())
    assert explained_prediction_of(response) == given._replace(best=())


@pytest.mark.parametrize("batch_of", [batch_response_of, predictor_batch_response_of])
def test_outcomes_survive_the_way_into_a_batch_and_back(batch_of: Any) -> None:
    outcomes: list[Outcome] = [PREDICTION, ModelNotFound("none"), InvalidRequest("bad"), ZERO, EXPLAINED]
    batch = batch_of(outcomes)
    came_back = outcomes_of(type(batch).FromString(batch.SerializeToString()))
    assert [isinstance(outcome, Prediction) for outcome in came_back] == [True, False, False, True, True]
    assert (came_back[0], *came_back[3:]) == (PREDICTION, ZERO, EXPLAINED)
    assert [status_of(outcome) for outcome in came_back if isinstance(outcome, ServingError)] == [
        Status(StatusCode.NOT_FOUND, "none"),
        Status(StatusCode.INVALID_ARGUMENT, "bad"),
    ]


@pytest.mark.parametrize("batch_of", [batch_response_of, predictor_batch_response_of])
def test_when_to_try_again_survives_the_way_into_a_batch_and_back(batch_of: Any) -> None:
    batch = batch_of([QuotaExceeded("later", 1.5), InvalidRequest("never")])
    later, never = outcomes_of(type(batch).FromString(batch.SerializeToString()))
    assert isinstance(later, ServingError)
    assert isinstance(never, ServingError)
    assert (later.retry_after, never.retry_after) == (1.5, None)


def test_how_long_each_caller_of_a_batch_waits_goes_to_the_predictor() -> None:
    now = time.monotonic()
    queries = [Query("a", "x", until=now + 1000.0), Query("a", "x", until=now - 5.0), Query("a", "x")]
    sent = [delegated_query_of(request_of(pb.PredictorPredictRequest, query)).until for query in queries]
    assert now + 990.0 < sent[0] < now + 1010.0 + (time.monotonic() - now)
    # A deadline that has passed arrives as passed, and not as unset.
    assert sent[1] <= time.monotonic() + 1e-3
    assert sent[2] == math.inf


ZERO = Prediction("", 0.0, (), "", "")
"""A prediction whose message is empty on the wire, and which must still not be read as a failure."""


@pytest.mark.parametrize("code", [0, 17, -1, 999])
def test_a_code_that_is_no_failure_of_grpc_is_told_as_internal_or_as_it_stands(code: int) -> None:
    batch = pb.PredictBatchResponse(results=[pb.PredictResult(status=pb.RequestStatus(code=code, message="odd"))])
    (outcome,) = outcomes_of(batch)
    assert isinstance(outcome, ServingError)


def test_text_that_is_no_unicode_is_refused_when_the_request_is_made() -> None:
    with pytest.raises(InvalidRequest, match="UTF-8"):
        request_of(pb.PredictRequest, Query("a", "\ud800"))
    for query in (Query("a", "\ud800", explain=()), Query("a", "x", explain=("\ud800",))):
        with pytest.raises(InvalidRequest, match="UTF-8"):
            request_of(pb.PredictRequest, query)
        with pytest.raises(InvalidRequest, match="UTF-8"):
            explain_request_of(query)


# Clients of the book's system, which are built here from its own text, with separate descriptors.


def _message(name: str, **fields: int) -> DescriptorProto:
    text, optional = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.LABEL_OPTIONAL
    described = [FieldDescriptorProto(name=key, number=fields[key], type=text, label=optional) for key in fields]
    return DescriptorProto(name=name, field=described)


class SeedClient:
    """A client compiled from the seed's own .proto, which lacks all later additions."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        file = FileDescriptorProto(name="seed.proto", package="prediction", syntax="proto3")
        file.message_type.extend(
            (
                _message("PredictRequest", runId=3, document=4),
                _message("PredictResponse", response=1),
                _message("PredictorPredictRequest", runId=1, document=2),
                _message("PredictorPredictResponse", response=1),
            )
        )
        pool = DescriptorPool()
        pool.Add(file)
        self._pool = pool
        self.channel = channel

    def message(self, name: str) -> Any:
        return GetMessageClass(self._pool.FindMessageTypeByName(f"prediction.{name}"))

    async def call(self, method: str, kind: str, **fields: str) -> Any:
        call: Any = self.channel.unary_unary(
            f"/prediction.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self.message(f"{kind}Response").FromString,
        )
        return await call(self.message(f"{kind}Request")(**fields), timeout=30.0)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


@asynccontextmanager
async def seed_client_of_the_frontend(model_dir: Path) -> AsyncIterator[SeedClient]:
    publish(model_dir, "1")
    async with hosted_frontend(model_dir, FakeBackend()) as address, channel_to(address) as channel:
        yield SeedClient(channel)


@asynccontextmanager
async def seed_client_of_the_predictor(model_dir: Path) -> AsyncIterator[SeedClient]:
    residents: ResidentModels[IntentModel] = ResidentModels(max_bytes=100, max_models=10)
    source = cast("ModelSource[IntentModel]", source_of({"1": FakeIntentModel()}))
    manager = ModelManager(source, residents, threads=1, max_loads=10, freshness_seconds=60.0)
    engine = InferenceEngine(manager, QueryLimits(1000, 10), TrafficRegistry(8), threads=1)
    try:
        async with hosted(model_dir, predictor_service(engine)) as address, channel_to(address) as channel:
            yield SeedClient(channel)
    finally:
        await engine.close()


@dataclass(frozen=True)
class Seed:
    """One of the two calls of the seed, and our service that answers it."""

    connected: Callable[[Path], AbstractAsyncContextManager[SeedClient]]
    method: str
    kind: str


BOTH = pytest.mark.parametrize(
    "seed",
    [
        Seed(seed_client_of_the_frontend, "PredictionService/Predict", "Predict"),
        Seed(seed_client_of_the_predictor, "Predictor/PredictorPredict", "PredictorPredict"),
    ],
    ids=["frontend", "predictor"],
)


@BOTH
@pytest.mark.parametrize(
    ("label", "text"),
    [("timer", '{"result": "timer"}'), ('a "b"\\', '{"result": "a \\"b\\"\\\\"}')],
    ids=["plain", "quoted"],
)
async def test_a_client_of_the_seed_gets_the_answer_it_knows(seed: Seed, label: str, text: str, tmp_path: Path) -> None:
    async with seed.connected(tmp_path) as client:
        answer = await client.call(seed.method, seed.kind, runId="1", document=label)
        assert answer.response == text


@BOTH
async def test_a_client_of_the_seed_gets_the_codes_it_knows(seed: Seed, tmp_path: Path) -> None:
    async with seed.connected(tmp_path) as client:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.call(seed.method, seed.kind, runId="unknown", document="x")
        assert caught.value.code() is StatusCode.NOT_FOUND


@BOTH
async def test_fields_that_nobody_knows_are_ignored(seed: Seed, tmp_path: Path) -> None:
    async with seed.connected(tmp_path) as client:
        data = client.message(f"{seed.kind}Request")(runId="1", document="hello").SerializeToString()
        unknown = b"\xfa\x01\x03abc" + b"\x98\x06\x05"
        call: Any = client.channel.unary_unary(f"/prediction.{seed.method}")
        answer = client.message(f"{seed.kind}Response").FromString(await call(unknown + data + unknown, timeout=30.0))
        assert answer.response == '{"result": "hello"}'


def test_the_bytes_of_the_seeds_messages_are_ours() -> None:
    assert request_of(pb.PredictRequest, Query("1", "a")).SerializeToString() == b"\x1a\x011\x22\x01a"
    assert request_of(pb.PredictorPredictRequest, Query("1", "a")).SerializeToString() == b"\x0a\x011\x12\x01a"
    assert pb.PredictResponse(response="x").SerializeToString() == b"\x0a\x01x"
    assert pb.PredictorPredictResponse(response="x").SerializeToString() == b"\x0a\x01x"
