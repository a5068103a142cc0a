"""Errors as callers of the REST API see them, and the boundary, which is the same as that of gRPC calls."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from frontend.open_inference.rest.refusals import http_status_of
from serving.call.call import current_call
from serving.domain import errors
from serving.domain.errors import INTERNAL_MESSAGE, ServingError
from serving.telemetry.logs import with_request_id
from tests.builders import PATIENCE, a_prediction, publish
from tests.fakes.backend import FakeBackend
from tests.fakes.hanging_backend import FakeHangingBackend
from tests.frontend.open_inference.rest.running import INFER, LIMIT, RestCaller, documents, rest_before
from tests.frontend.open_inference.running import CLASSES, an_answer
from tests.serving.refusals import assert_fit_for_callers

OURS = "x-request-id"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish(tmp_path, "model", classes=CLASSES, ModelVersion="1.0")
    return tmp_path


@pytest.fixture
async def rest(models: Path) -> AsyncIterator[RestCaller]:
    async with rest_before(models, FakeBackend(an_answer)) as caller:
        yield caller


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs(processors=[with_request_id]) as captured:
        yield captured


async def seen(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), PATIENCE)


# Statuses


STATUSES = {
    errors.InvalidRequest: 400,
    errors.ModelNotFound: 404,
    errors.ModelUnusable: 400,
    errors.ChecksumMismatch: 500,
    errors.OutOfCapacity: 429,
    errors.DeadlineExceeded: 504,
    errors.Unavailable: 503,
    errors.NonFiniteLogits: 500,
}


@pytest.mark.parametrize(("kind", "status"), STATUSES.items(), ids=lambda value: getattr(value, "__name__", value))
async def test_an_error_of_the_tree_is_told_with_its_status_and_its_message(
    kind: type[ServingError], status: int, models: Path, logged: list[Any]
) -> None:
    async with rest_before(models, FakeBackend(failure=kind("what to do: é😀"))) as rest:
        answer = await rest.post(INFER, documents("a"))
    assert answer.status == status
    # The protocol has no runId, so an unknown model has a message of its own.
    assert kind is errors.ModelNotFound or answer.error == "what to do: é😀"
    assert [event["method"] for event in logged if event["event"] == "call"] == ["POST /v2/models/{model}/infer"]


@pytest.mark.parametrize("code", StatusCode, ids=lambda code: code.name)
def test_every_code_has_a_status_of_an_error(code: StatusCode) -> None:
    assert code is StatusCode.OK or 400 <= http_status_of(code) < 600


async def test_a_bug_is_told_with_a_fixed_text_and_logged_once_under_the_request_id(
    models: Path, logged: list[Any]
) -> None:
    secret = ValueError("/secret/path")
    async with rest_before(models, FakeBackend(failure=secret)) as rest:
        answer = await rest.post(INFER, documents("a"), x_request_id="my-id")
    assert (answer.status, answer.error, answer.headers[OURS]) == (500, INTERNAL_MESSAGE, "my-id")
    (event,) = [event for event in logged if event["log_level"] == "error"]
    assert (event["request_id"], event["exc_info"]) == ("my-id", secret)


@pytest.mark.parametrize("path", ["/v2/models/another", "/v2/models/.hidden", "/v2/models/model/versions/9"])
@pytest.mark.parametrize("rest_of_path", ["", "/config", "/stats"])
async def test_a_model_that_is_not_there_is_not_found(path: str, rest_of_path: str, rest: RestCaller) -> None:
    answer = await rest.get(path + rest_of_path)
    assert answer.status == 404
    assert_fit_for_callers(ServingError(answer.error))


@pytest.mark.parametrize(
    "path", ["/", "/v2x", "/v2/models", "/v2/models//infer", "/v2/models/a/b/c", "/v2/health/live/"]
)
async def test_a_path_that_is_not_known_is_not_found(path: str, rest: RestCaller) -> None:
    for answer in (await rest.get(path), await rest.post(path, documents("a"))):
        assert (answer.status, "/v2" in answer.error) == (404, True)


async def test_a_wrong_method_is_refused_and_the_right_one_is_named(rest: RestCaller) -> None:
    answer = await rest.get(INFER)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert "method" in answer.error
    assert (await rest.post("/v2/health/live")).status == 405


# Bodies


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(rest: RestCaller) -> None:
    request = await rest.start("POST", INFER, b"", whole=False, headers={"content_length": str(LIMIT + 1)})
    answer = await request.answer()
    assert (answer.status, str(LIMIT) in answer.error) == (413, True)


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
async def test_a_body_of_unknown_length_is_read_up_to_the_bound(size: int, rest: RestCaller) -> None:
    body = json.dumps(documents("a")).encode()
    request = await rest.start("POST", INFER, body, whole=False)
    request.send(b" " * (size - len(body)), last=True)
    assert (await request.answer()).status == (200 if size == LIMIT else 413)


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, 1 << 20])
async def test_the_bound_is_that_of_the_body_when_it_is_decompressed(size: int, rest: RestCaller) -> None:
    body = json.dumps(documents("a")).encode().ljust(size)
    answer = await rest.post(INFER, gzip.compress(body), content_encoding="gzip")
    assert answer.status == (200 if size == LIMIT else 413)


async def test_an_encoding_that_is_not_known_is_refused(rest: RestCaller) -> None:
    answer = await rest.post(INFER, documents("a"), content_encoding="br")
    assert (answer.status, "gzip" in answer.error) == (415, True)


async def test_a_body_may_come_byte_by_byte(rest: RestCaller) -> None:
    request = await rest.start("POST", INFER, whole=False)
    for byte in json.dumps(documents("a")).encode():
        request.send(bytes([byte]))
    request.send(b"", last=True)
    assert (await request.answer()).status == 200


# Deadlines


async def test_a_call_without_a_deadline_gets_the_default(models: Path) -> None:
    engine = FakeHangingBackend()
    async with rest_before(models, engine, seconds=0.05) as rest:
        answer = await rest.post(INFER, documents("a"))
    assert answer.status == 504
    assert "deadline" in answer.error
    assert OURS in answer.headers


@pytest.mark.parametrize(
    ("headers", "keys"),
    [({"grpc_timeout": "50m"}, {}), ({}, {"parameters": {"timeout": 50_000}})],
    ids=["header", "parameter of Triton"],
)
async def test_the_deadline_of_the_caller_ends_the_work(headers: Any, keys: Any, models: Path) -> None:
    engine = FakeHangingBackend()
    async with rest_before(models, engine) as rest:
        answer = await rest.post(INFER, documents("a", **keys), **headers)
        assert answer.status == 504
        # On a very slow machine, the deadline may pass before the query reaches the engine.
        assert engine.cancelled.is_set() or not engine.started.is_set()


async def test_a_body_that_does_not_come_ends_with_the_deadline(rest: RestCaller) -> None:
    request = await rest.start("POST", INFER, b"{", whole=False, headers={"grpc_timeout": "50m"})
    assert (await request.answer()).status == 504


async def test_the_engine_knows_the_deadline_of_the_caller(models: Path) -> None:
    engine = FakeBackend(lambda query: a_prediction(query, str(current_call().deadline.remaining())))
    async with rest_before(models, engine) as rest:
        answer = await rest.post(INFER, documents("a"), grpc_timeout="600S")
        assert 600.0 - PATIENCE < float(answer.json()["outputs"][0]["data"][0]) <= 600.0


@pytest.mark.parametrize("written", ["", "1", "S", "-1S", "1.5S", "123456789S", "1 S", "é"])
async def test_a_timeout_that_cannot_be_read_is_refused(written: str, rest: RestCaller) -> None:
    answer = await rest.get("/v2", grpc_timeout=written)
    assert (answer.status, "grpc-timeout" in answer.error) == (400, True)


# Callers that disconnect


async def test_a_caller_who_leaves_ends_the_work_and_frees_its_place(models: Path) -> None:
    engine = FakeHangingBackend()
    async with rest_before(models, engine, max_in_flight=1) as rest:
        for _ in range(3):
            engine.started.clear()
            engine.cancelled.clear()
            request = await rest.start("POST", INFER, documents("a"))
            await seen(engine.started)
            request.leave()
            await seen(engine.cancelled)
            await rest.under_way(0)
        engine.may_answer.set()
        assert (await rest.post(INFER, documents("a"))).status == 200


async def test_a_caller_who_leaves_before_all_was_sent_is_no_error(rest: RestCaller, logged: list[Any]) -> None:
    request = await rest.start("POST", INFER, b"{", whole=False)
    await rest.under_way(1)
    request.leave()
    await rest.under_way(0)
    assert not [event for event in logged if event["log_level"] == "error"]


# The boundary


async def test_calls_beyond_the_bound_are_refused_and_the_next_is_served_when_one_ends(models: Path) -> None:
    engine = FakeHangingBackend()
    async with rest_before(models, engine, max_in_flight=1) as rest:
        first = await rest.start("POST", INFER, documents("a"))
        await seen(engine.started)
        refused = await rest.get("/v2")
        assert (refused.status, OURS in refused.headers) == (429, True)
        engine.may_answer.set()
        assert (await first.answer()).status == 200
        assert (await rest.get("/v2")).status == 200


async def test_the_callers_request_id_comes_back_and_others_are_replaced(rest: RestCaller) -> None:
    assert (await rest.get("/v2", x_request_id="A.b_c-9")).headers[OURS] == "A.b_c-9"
    for unfit in ("", "two words", "x" * 129, "é"):
        assert uuid.UUID((await rest.get("/v2", x_request_id=unfit)).headers[OURS]).int
    assert (await rest.get("/v2/models/another", x_request_id="kept")).headers[OURS] == "kept"


# Hostile bodies


def nested(levels: int, text: str = "") -> bytes:
    return b"[" * levels + text.encode() + b"]" * levels


HOSTILE = {
    "nothing": b"",
    "not valid JSON": b"document=hello",
    "cut off": b'{"inputs": [',
    "two values": b"{} {}",
    "no object": b"[]",
    "null": b"null",
    "a key twice": b'{"inputs": [], "inputs": []}',
    "NaN": b'{"inputs": [], "x": NaN}',
    "Infinity": b'{"inputs": [], "x": -Infinity}',
    "too large a number": b'{"inputs": [], "x": 1e400}',
    "too many digits": b'{"inputs": [], "x": ' + b"1" * 3000 + b"}",
    "deep": nested(LIMIT // 2),
    "deep in a parameter": b'{"inputs": [], "parameters": {"x": ' + nested(700) + b"}}",
    "half a surrogate": rb'{"inputs": [{"name": "document", "datatype": "BYTES", "shape": [1], "data": ["\ud800"]}]}',
    "half a surrogate in a key": rb'{"inputs": [], "\udc00": 1}',
    "not valid UTF-8": b'{"inputs": [], "id": "\xff"}',
    "UTF-16": '{"inputs": []}'.encode("utf-16"),
    "an id that is no text": b'{"inputs": [], "id": 7}',
    "a parameter that is none": b'{"inputs": [], "parameters": {"x": []}}',
    "a parameter of 65 bits": b'{"inputs": [], "parameters": {"x": 18446744073709551616}}',
    "inputs that are no objects": b'{"inputs": [1]}',
    "an input without a name": b'{"inputs": [{}]}',
    "dimensions without end": b'{"inputs": [{"name": "document", "datatype": "BYTES", "data": [], "shape": [%s]}]}'
    % b",".join([b"9223372036854775807"] * 150),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_json_is_refused_in_plain_words(body: bytes, rest: RestCaller, logged: list[Any]) -> None:
    answer = await rest.post(INFER, body)
    assert answer.status == 400
    assert_fit_for_callers(ServingError(answer.error))
    assert len(logged) == 1


async def test_hostile_json_of_the_other_calls_is_refused(rest: RestCaller) -> None:
    for path in ("/v2/repository/index", "/v2/repository/models/model/load", "/v2/repository/models/model/unload"):
        for body in (
            b"x",
            b"[]",
            b'{"ready": 1, "parameters": {"x": 1.5}}',
            b'{"parameters": {"x": 18446744073709551615}}',
        ):
            assert (await rest.post(path, body)).status in (200, 400)
    assert (await rest.post("/v2/repository/index", {"ready": "yes"})).status == 400
    assert (await rest.post("/v2/repository/models/model/load", {"parameters": {"config": "{}"}})).status == 400


async def test_what_callers_write_is_not_logged(rest: RestCaller, logged: list[Any]) -> None:
    await rest.post(INFER, {"inputs": ["my-secret"], "id": ["my-secret"], "outputs": "my-secret"})
    assert len(logged) == 1
    assert "my-secret" not in str(logged)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "classification", "timeout"])
    | st.text(max_size=3),
    JSON,
    max_size=3,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["document", "label", "score"]) | JSON,
        "datatype": st.sampled_from(["BYTES", "FP32", "INT64", "BOOL"]) | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "data": st.lists(st.text(max_size=3), max_size=3) | JSON,
        "parameters": PARAMETERS | JSON,
    },
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=3) | JSON,
        "inputs": st.lists(TENSORS, max_size=2) | JSON,
        "outputs": st.lists(TENSORS, max_size=2) | JSON,
        "parameters": PARAMETERS | JSON,
    },
)


def _written(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("make", [_written, lambda value: value], ids=["JSON", "bytes"])
def test_whatever_comes_is_answered_or_refused_and_is_never_a_bug(
    make: Callable[[Any], bytes], tmp_path_factory: pytest.TempPathFactory, logged: list[Any]
) -> None:
    models = tmp_path_factory.mktemp("models")
    publish(models, "model", classes=CLASSES, ModelVersion="1.0")
    bodies = (REQUESTS | JSON).map(make) if make is _written else st.binary(max_size=200)
    lengths = st.none() | st.integers(-1, 300).map(str) | st.text("0123456789-. ", max_size=5)

    async def ask(body: bytes, binary: bytes, length: str | None) -> None:
        headers = {} if length is None else {"inference_header_content_length": length}
        async with rest_before(models, FakeBackend(an_answer), freshness_seconds=60.0) as rest:
            answer = await rest.post(INFER, body + binary, **headers)
        assert answer.status in (200, 400, 413, 504), answer.body
        if answer.status != 200:
            assert answer.error

    @given(bodies, st.binary(max_size=20) if make is _written else st.just(b""), lengths)
    def check(body: bytes, binary: bytes, length: str | None) -> None:
        logged.clear()
        # The length is right in some of the cases.
        asyncio.run(ask(body, binary, str(len(body)) if binary and length is None else length))
        assert not [event for event in logged if event["log_level"] == "error"]

    check()
