"""A backend before a server of the Open Inference Protocol: requests, batches, and queries that are sent alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from frontend.batching.coalescing import CoalescingBackend
from frontend.engines.groups import parts_of
from frontend.engines.open_inference.request import MOST_CHARACTERS, request_of
from serving.domain.errors import ModelNotFound, ModelUnusable, ServingError
from serving.domain.prediction import Prediction, Query, ScoredLabel
from serving.stubs import open_inference_pb2 as pb
from serving.wire.raw_tensors import pack_bytes
from tests.builders import PATIENCE, a_call
from tests.fakes.manifests import UNPUBLISHED, a_manifest
from tests.fakes.open_inference import (
    INSIDES,
    FakeOpenInference,
    before,
    documents_in,
    queries,
    refusing,
    told,
)
from tests.serving.refusals import assert_fit_for_callers


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.mark.parametrize("contents", ["raw", "typed"])
@pytest.mark.parametrize("raw", [True, False, None], ids=["answers raw", "answers typed", "mirrors"])
async def test_a_query_is_answered_in_whichever_form_the_engine_answers(contents: str, raw: bool | None) -> None:
    async with before(FakeOpenInference(raw=raw), OpenInference={"contents": contents}) as backend:
        answer = await backend.predict(Query("m", "größe", 1), a_call())
        assert answer == Prediction("größe", 0.5, (ScoredLabel("größe", 0.5),), "m", "1")


async def test_the_request_is_what_the_manifest_says() -> None:
    engine = FakeOpenInference()
    described = {
        "model": "there",
        "version": "3",
        "input": "TEXT",
        "shape": [1, -1],
        "contents": "typed",
        "label": "label",
    }
    async with before(engine, OpenInference=described, ModelName="x") as backend:
        await backend.predict_batch(queries("a", "b"), a_call(request_id="id-7"))
    (request,) = engine.asked
    assert (request.model_name, request.model_version, request.id) == ("there", "3", "id-7")
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, [*tensor.shape]) == ("TEXT", "BYTES", [1, 2])
    assert [*tensor.contents.bytes_contents] == [b"a", b"b"]
    assert not request.raw_input_contents
    assert [output.name for output in request.outputs] == ["label"]
    assert engine.metadata[0]["x-request-id"] == "id-7"


async def test_where_the_manifest_says_nothing_there_are_defaults() -> None:
    engine = FakeOpenInference()
    async with before(engine) as backend:
        await backend.predict_batch(queries("a", "bb"), a_call())
    (request,) = engine.asked
    assert (request.model_name, request.model_version) == ("m", "")
    (tensor,) = request.inputs
    assert (tensor.name, tensor.datatype, [*tensor.shape]) == ("document", "BYTES", [2, 1])
    assert [*request.raw_input_contents] == [b"\x01\x00\x00\x00a\x02\x00\x00\x00bb"]
    assert [output.name for output in request.outputs] == ["label", "score"]


def test_the_model_is_called_as_the_manifest_calls_it() -> None:
    (query,) = queries("a")
    for keys, name in (
        ({}, "m"),
        ({"ModelName": "book"}, "book"),
        ({"ModelName": "book", "OpenInference": {"model": "there"}}, "there"),
    ):
        assert request_of(a_manifest(**keys), [query], "id").model_name == name


@given(st.lists(st.integers(0, 1 << 19), max_size=40), st.integers(1, 10))
def test_parts_are_whole_in_order_and_within_their_bounds(lengths: list[int], most: int) -> None:
    asked = [Query(str(index), "x" * length) for index, length in enumerate(lengths)]
    parts = [*parts_of(asked, most=most, most_characters=MOST_CHARACTERS)]
    assert [query for part in parts for query in part] == asked
    assert all(1 <= len(part) <= most for part in parts)
    assert all(len(part) == 1 or sum(len(query.document) for query in part) <= 1 << 18 for part in parts)
    assert len(parts) <= sum(length > 1 << 17 for length in lengths) * 2 + len(lengths) // most + 1 + len(lengths) // 2


# Batches.


async def test_a_batch_goes_in_as_few_requests_as_the_manifest_allows() -> None:
    engine = FakeOpenInference()
    documents = [str(number) for number in range(150)]
    async with before(engine, OpenInference={"max_batch_size": 64}) as backend:
        assert told(await backend.predict_ready(queries(*documents), a_call())) == documents
        assert sorted(engine.sizes) == [22, 64, 64]
        engine.asked.clear()
        assert told(await backend.predict_batch(queries(*documents), a_call())) == documents
        assert sorted(engine.sizes) == [22, 64, 64]


async def test_a_batch_for_many_models_keeps_its_order() -> None:
    engine = FakeOpenInference()
    asked = [Query(f"m-{number % 7}", str(number)) for number in range(70)]
    async with before(engine) as backend:
        assert told(await backend.predict_batch(asked, a_call())) == [query.document for query in asked]
        assert told(await backend.predict_batch([], a_call())) == []
    assert engine.sizes == [10] * 7
    assert {request.model_name for request in engine.asked} == {query.model_id for query in asked}


async def test_a_model_that_cannot_be_looked_up_fails_its_own_queries_alone() -> None:
    async with before(FakeOpenInference()) as backend:
        asked = [Query("m", "a"), Query(UNPUBLISHED, "b"), Query("..", "c"), Query("m", "d")]
        assert told(await backend.predict_batch(asked, a_call())) == ["a", "ModelNotFound", "InvalidModelId", "d"]
        with pytest.raises(ModelNotFound):
            await backend.predict(asked[1], a_call())
        with pytest.raises(ModelNotFound):
            await backend.predict_ready([asked[1]], a_call())


async def test_where_the_shape_has_one_document_each_is_asked_alone() -> None:
    engine = FakeOpenInference()
    documents = [str(number) for number in range(40)]
    async with before(engine, OpenInference={"shape": [1]}) as backend:
        assert told(await backend.predict_ready(queries("a", "b"), a_call())) == [None, None]
        assert not engine.asked
        assert told(await backend.predict_ready(queries("a"), a_call())) == ["a"]
        assert told(await backend.predict_batch(queries(*documents), a_call())) == documents
    assert engine.sizes == [1] * 41
    assert [*engine.asked[0].inputs[0].shape] == [1]


async def test_a_batch_is_never_more_than_sixteen_calls_at_once() -> None:
    full, go = asyncio.Event(), asyncio.Event()

    async def hold(_: list[str]) -> None:
        if engine.at_once >= 16:
            full.set()
        await go.wait()

    engine = FakeOpenInference(hold)
    asked = [Query(f"m-{number % 5}", str(number)) for number in range(100)]
    async with before(engine, OpenInference={"max_batch_size": 1}) as backend:
        batch = asyncio.create_task(backend.predict_batch(asked, a_call()))
        await asyncio.wait_for(full.wait(), PATIENCE)
        # The pause is long enough for further requests to arrive, if there were any.
        await asyncio.sleep(0.2)
        go.set()
        assert told(await batch) == [query.document for query in asked]
    assert engine.sizes == [1] * 100
    assert engine.most_at_once == 16


@pytest.mark.parametrize("code", [StatusCode.INVALID_ARGUMENT, StatusCode.INTERNAL, StatusCode.UNKNOWN])
async def test_one_document_that_the_engine_refuses_does_not_fail_its_neighbours(
    code: StatusCode, logged: list[Any]
) -> None:
    engine = FakeOpenInference(refusing(code, "bad"))
    async with before(engine) as backend:
        asked = queries("a", "bad", "c")
        assert told(await backend.predict_ready(asked, a_call())) == [None, None, None]
        # The log holds the engine's own message for the operator.
        assert [entry["reason"] for entry in logged if entry["log_level"] == "warning"] == [INSIDES]
        first, second, third = await backend.predict_batch(asked, a_call())
        assert told([first, third]) == ["a", "c"]
        assert isinstance(second, ServingError)
        assert_fit_for_callers(second)
        assert told(await backend.predict_ready(queries("bad"), a_call())) == [type(second).__name__]


async def test_an_engine_that_answers_a_batch_wrongly_is_asked_for_each_alone() -> None:
    class OneAtATime(FakeOpenInference):
        def _answer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
            request.raw_input_contents[0] = pack_bytes([document.encode() for document in documents_in(request)[:1]])
            return super()._answer(request)

    async with before(OneAtATime()) as backend:
        assert told(await backend.predict_ready(queries("a", "b"), a_call())) == [None, None]
        assert told(await backend.predict_batch(queries("a", "b"), a_call())) == ["a", "b"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (StatusCode.RESOURCE_EXHAUSTED, "OutOfCapacity"),
        (StatusCode.NOT_FOUND, "ModelIncomplete"),
        (StatusCode.PERMISSION_DENIED, "PermissionDenied"),
        (StatusCode.DEADLINE_EXCEEDED, "DeadlineExceeded"),
    ],
)
async def test_what_is_no_fault_of_a_document_is_not_asked_again(code: StatusCode, kind: str) -> None:
    engine = FakeOpenInference(refusing(code))
    async with before(engine) as backend:
        assert told(await backend.predict_ready(queries("a", "b"), a_call())) == [kind, kind]
        assert told(await backend.predict_batch(queries("a", "b"), a_call())) == [kind, kind]
    assert engine.sizes == [2, 2]


async def test_each_query_of_a_batch_gets_an_error_of_its_own() -> None:
    async with before(FakeOpenInference(refusing(StatusCode.NOT_FOUND))) as backend:
        first, second = await backend.predict_batch(queries("a", "b"), a_call())
        assert first is not second


async def test_a_document_that_utf8_cannot_hold_fails_alone() -> None:
    async with before(FakeOpenInference()) as backend:
        assert told(await backend.predict_batch(queries("a", "\ud800"), a_call())) == ["a", "InvalidRequest"]


async def test_queries_of_one_model_that_arrive_together_are_one_request() -> None:
    engine = FakeOpenInference(refusing(StatusCode.INTERNAL, "bad"))
    async with before(engine) as backend:
        coalescing = CoalescingBackend(backend, calls=1, group_of=backend.group_of)
        asked = [Query(f"m-{number % 2}", str(number)) for number in range(20)]
        answers = await asyncio.gather(*(coalescing.predict(query, a_call()) for query in asked))
        assert told(answers) == [query.document for query in asked]
        assert engine.sizes == [10, 10]
        together = (coalescing.predict(query, a_call()) for query in queries("a", "bad", "c"))
        first, second, third = await asyncio.gather(*together, return_exceptions=True)
        assert isinstance(first, Prediction)
        assert isinstance(third, Prediction)
        assert isinstance(second, ServingError)
        # Batches continue.
        engine.asked.clear()
        await asyncio.gather(*(coalescing.predict(query, a_call()) for query in queries("a", "b")))
        assert engine.sizes == [2]


async def test_a_model_that_is_not_asked_in_this_way_leaves_batches_to_others() -> None:
    engine = FakeOpenInference(refusing(StatusCode.UNIMPLEMENTED, "decoupled"))
    async with before(engine) as backend:
        coalescing = CoalescingBackend(backend, calls=1, group_of=backend.group_of)
        with pytest.raises(ModelUnusable):
            await coalescing.predict(Query("other", "decoupled"), a_call())
        engine.asked.clear()
        await asyncio.gather(*(coalescing.predict(query, a_call()) for query in queries("a", "b")))
        assert engine.sizes == [2]
