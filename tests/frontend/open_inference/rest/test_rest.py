"""The REST API of the Open Inference Protocol: each call's path, JSON and binary tensors, before the real servicer."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from serving.wire.raw_tensors import pack_bytes, unpack_bytes, unpack_floats
from tests.builders import PATIENCE, publish
from tests.fakes.backend import FakeBackend
from tests.frontend.open_inference.rest.running import INFER, RestAnswer, RestCaller, documents, rest_before
from tests.frontend.open_inference.running import CLASSES, EXPLAINED, an_answer, an_answer_with_reasons

Change = Callable[[bytes], bytes]

JSON_LENGTH = "inference-header-content-length"
VERSION_PATHS = ["/v2/models/model", "/v2/models/model/versions/1.0"]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish(tmp_path, "model", classes=CLASSES, ModelVersion="1.0")
    return tmp_path


@pytest.fixture
async def engine() -> FakeBackend:
    return FakeBackend(an_answer)


@pytest.fixture
async def rest(models: Path, engine: FakeBackend) -> AsyncIterator[RestCaller]:
    async with rest_before(models, engine) as caller:
        yield caller


def outputs_of(answer: RestAnswer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    return {output["name"]: output for output in answer.json()["outputs"]}


def binary_outputs_of(answer: RestAnswer) -> tuple[Any, dict[str, bytes]]:
    """Return the JSON and the binary data of each output; nothing else follows the JSON."""
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/octet-stream"
    end = int(answer.headers[JSON_LENGTH])
    found, rest = {}, answer.body[end:]
    described = json.loads(answer.body[:end])
    for output in described["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            assert "data" not in output
            found[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    return described, found


def with_binary(request: dict[str, Any], *tensors: bytes) -> tuple[bytes, dict[str, str]]:
    """Return the body, and the header that gives the end of its JSON."""
    text = json.dumps(request).encode()
    return b"".join([text, *tensors]), {"inference_header_content_length": str(len(text))}


def binary_document(size: int, *, shape: tuple[int, ...] = (1,), **keys: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    tensor = {"name": "document", "datatype": "BYTES", "shape": shape, "parameters": parameters}
    return {"inputs": [tensor], **keys}


# Health and descriptions


@pytest.mark.parametrize("is_ready", [True, False])
async def test_health_is_told_by_status_and_by_json(is_ready: bool, models: Path) -> None:
    async with rest_before(models, FakeBackend(), is_ready=lambda: is_ready) as rest:
        live, ready = await rest.get("/v2/health/live"), await rest.get("/v2/health/ready")

    assert (live.status, live.json()) == (200, {"live": True})
    assert (ready.status, ready.json()) == (200 if is_ready else 503, {"ready": is_ready})


@pytest.mark.parametrize("path", VERSION_PATHS)
async def test_a_model_that_is_there_is_ready(path: str, rest: RestCaller) -> None:
    answer = await rest.get(f"{path}/ready")
    assert (answer.status, answer.json()) == (200, {"name": "model", "ready": True})


@pytest.mark.parametrize("path", ["/v2/models/another", "/v2/models/model/versions/2"])
async def test_a_model_that_is_not_there_is_not_ready(path: str, rest: RestCaller) -> None:
    answer = await rest.get(f"{path}/ready")
    assert (answer.status, answer.json()["ready"]) == (503, False)


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
async def test_the_server_tells_its_name_and_its_extensions(path: str, rest: RestCaller) -> None:
    answer = (await rest.get(path)).json()
    assert answer["name"] == "intent-serving"
    assert "classification" in answer["extensions"]


@pytest.mark.parametrize("path", VERSION_PATHS)
async def test_a_model_tells_its_tensors(path: str, rest: RestCaller) -> None:
    answer = (await rest.get(path)).json()
    assert (answer["name"], answer["versions"]) == ("model", ["1.0"])
    assert answer["inputs"] == [{"name": "document", "datatype": "BYTES", "shape": [-1, 1]}]
    assert [output["name"] for output in answer["outputs"]] == ["label", "score"]


@pytest.mark.parametrize("path", VERSION_PATHS)
async def test_the_configuration_has_numbers_where_triton_has_numbers(path: str, rest: RestCaller) -> None:
    answer = (await rest.get(f"{path}/config")).json()
    assert (answer["name"], answer["max_batch_size"]) == ("model", 8)
    assert answer["input"] == [{"name": "document", "data_type": "TYPE_STRING", "dims": [1]}]


@pytest.mark.parametrize("path", ["/v2/models/stats", *(f"{path}/stats" for path in VERSION_PATHS)])
async def test_what_was_asked_is_counted(path: str, rest: RestCaller) -> None:
    await rest.post(INFER, documents("a", "b"))
    (counted,) = (await rest.get(path)).json()["model_stats"]
    assert (counted["name"], counted["inference_count"]) == ("model", 2)
    assert counted["inference_stats"]["success"]["count"] == 1


async def test_the_index_lists_the_models(models: Path, rest: RestCaller) -> None:
    publish(models, "other", Algorithm="no engine has it")
    every = (await rest.post("/v2/repository/index")).json()
    ready = (await rest.post("/v2/repository/index", {"ready": True})).json()
    assert [(model["name"], model["state"]) for model in every] == [("model", "READY"), ("other", "UNAVAILABLE")]
    assert [model["name"] for model in ready] == ["model"]


@pytest.mark.parametrize("body", [b"", {}, {"parameters": {"unload_dependents": False, "n": 1, "text": "x"}}])
async def test_a_model_is_loaded_and_unloaded(body: Any, engine: FakeBackend, rest: RestCaller) -> None:
    loaded = await rest.post("/v2/repository/models/model/load", body)
    assert (loaded.status, loaded.json()) == (200, {"name": "model", "load": True})
    assert engine.loaded == ["model"]

    unloaded = await rest.post("/v2/repository/models/model/unload", body)
    assert (unloaded.status, unloaded.json()) == (200, {"name": "model", "unload": True})
    assert engine.unloaded == ["model"]


# Inference in JSON


@pytest.mark.parametrize("path", ["/v2/models/model/infer", "/v2/models/model/versions/1.0/infer"])
async def test_documents_are_answered_in_json(path: str, rest: RestCaller) -> None:
    answer = await rest.post(path, documents("left", "right", id="request 7"))
    assert answer.json() == {
        "model_name": "model",
        "model_version": "1.0",
        "id": "request 7",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["yes", "yes"]},
            {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.75, 0.75]},
        ],
    }


@pytest.mark.parametrize("data", [["ä", "b", ""], [["ä"], ["b"], [""]]], ids=["flat", "nested"])
async def test_data_are_flat_or_nested_as_the_shape_is(data: Any, engine: FakeBackend, rest: RestCaller) -> None:
    request = documents(shape=[3, 1])
    request["inputs"][0]["data"] = data
    assert outputs_of(await rest.post(INFER, request))["label"]["shape"] == [3, 1]
    assert [query.document for query in engine.batches[0]] == ["ä", "b", ""]


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2], ["a"]),
        ([1], ["a", "b"]),
        ([2, 1], [["a", "b"]]),
        ([2, 1], [["a"], "b"]),
        ([2, 1], [["a"], ["b", "c"]]),
        ([2], [["a"], ["b"]]),
        ([1, 1], [[["a"]]]),
        ([1], []),
        ([1], [1]),
        ([1], [None]),
        ([1], [True]),
        ([1], [{}]),
        ([-1], ["a"]),
        ([1.0], ["a"]),
        ([True], ["a"]),
        (["1"], ["a"]),
        ([1 << 64], ["a"]),
        ([1] * 17, ["a"]),
        (1, ["a"]),
        ([1], "a"),
        ([1], {"a": 1}),
    ],
    ids=str,
)
async def test_data_that_do_not_fit_the_shape_are_refused(shape: Any, data: Any, rest: RestCaller) -> None:
    request = documents()
    request["inputs"][0] |= {"shape": shape, "data": data}
    answer = await rest.post(INFER, request)
    assert answer.status == 400, answer.body
    assert answer.error


async def test_numbers_are_told_apart_from_documents(rest: RestCaller) -> None:
    """Numbers are read as the protocol says, and the model has no such input."""
    for datatype, data in {
        "BOOL": [True],
        "INT8": [-128],
        "UINT64": [(1 << 64) - 1],
        "FP16": [0.5],
        "FP64": [1],
    }.items():
        answer = await rest.post(INFER, {"inputs": [{"name": "n", "datatype": datatype, "shape": [1], "data": data}]})
        assert (answer.status, "document" in answer.error) == (400, True), datatype


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT8", [128]), ("UINT8", [-1]), ("UINT64", [1 << 64]), ("FP32", [1e39]), ("FP64", [10**400]), ("BOOL", [1]),
        ("INT32", [True]), ("INT32", [1.0]), ("FP32", ["1"]), ("BF16", [1.0]), ("no such", [1]), ("", [1]),
    ],
    ids=str,
)  # fmt: skip
async def test_numbers_out_of_range_or_of_another_type_are_refused(datatype: str, data: Any, rest: RestCaller) -> None:
    request = {"inputs": [{"name": "document", "datatype": datatype, "shape": [1], "data": data}]}
    answer = await rest.post(INFER, request)
    assert (answer.status, "datatype" in answer.error) == (400, True)


async def test_outputs_are_those_that_were_asked_for(rest: RestCaller) -> None:
    answer = await rest.post(INFER, documents("a", outputs=[{"name": "score"}]))
    assert list(outputs_of(answer)) == ["score"]


async def test_a_threshold_and_what_tells_that_it_was_not_reached(models: Path) -> None:
    wanted = [{"name": name} for name in ("label", "best_label", "best_score")]
    async with rest_before(models, FakeBackend(an_answer_with_reasons)) as rest:
        asked = documents("a", outputs=wanted, parameters={"threshold": 0.8})
        outputs = outputs_of(await rest.post(INFER, asked))
        refused = await rest.post(INFER, documents("a", parameters={"threshold": 2}))

    assert {name: output["data"] for name, output in outputs.items()} == {
        "label": ["oos"], "best_label": ["yes"], "best_score": [0.75],
    }  # fmt: skip
    assert (refused.status, "from 0 to 1" in refused.error) == (400, True)


async def test_an_explanation_is_json_within_json_or_binary(models: Path) -> None:
    async with rest_before(models, FakeBackend(an_answer_with_reasons)) as rest:
        answer = await rest.post(INFER, documents("a", outputs=[{"name": "explanation"}]))
        binary = [{"name": "explanation", "parameters": {"binary_data": True}}]
        _, found = binary_outputs_of(await rest.post(INFER, documents("a", outputs=binary)))

    (text,) = outputs_of(answer)["explanation"]["data"]
    assert json.loads(text)["tokens"] == list(EXPLAINED.tokens)
    assert unpack_bytes(found["explanation"]) == [text.encode()]


async def test_classes_are_told_on_request(rest: RestCaller) -> None:
    wanted = [{"name": "score", "parameters": {"classification": 2}}]
    answer = await rest.post(INFER, documents("a", "b", outputs=wanted))
    assert outputs_of(answer)["score"] == {
        "name": "score",
        "datatype": "BYTES",
        "shape": [2, 2],
        "data": ["0.750000:1:yes", "0.200000:2:maybe"] * 2,
    }


async def test_null_stands_for_no_value_and_unknown_keys_are_ignored(rest: RestCaller) -> None:
    request = documents("a", id=None, outputs=None, parameters=None, model_name="another", model_version="9")
    answer = await rest.post(INFER, request)
    assert (answer.status, answer.json()["model_name"], "id" in answer.json()) == (200, "model", False)


BYTE_ORDER_MARK = b"\xef\xbb\xbf"


async def test_a_byte_order_mark_before_the_json_is_no_part_of_it(rest: RestCaller) -> None:
    request = json.dumps(documents("a")).encode()
    marked, plain = [await rest.post(INFER, body) for body in (BYTE_ORDER_MARK + request, request)]
    assert (marked.status, outputs_of(marked)) == (200, outputs_of(plain))
    index = "/v2/repository/index"
    assert (await rest.post(index, BYTE_ORDER_MARK + b"{}")).body == (await rest.post(index, b"{}")).body


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain", ""])
async def test_json_is_read_whatever_its_content_type_says(content_type: str, rest: RestCaller) -> None:
    headers = {"content-type": content_type}
    assert (await rest.post(INFER, documents("a"), **headers)).status == 200


# Binary tensors


async def test_binary_documents_are_answered_in_json_or_binary(engine: FakeBackend, rest: RestCaller) -> None:
    packed = pack_bytes([b"left", "rächts".encode()])
    for wanted in (False, True):
        request = binary_document(len(packed), shape=(2, 1), parameters={"binary_data_output": wanted})
        body, headers = with_binary(request, packed)
        answer = await rest.post(INFER, body, **headers)
        if wanted:
            _, outputs = binary_outputs_of(answer)
            assert unpack_bytes(outputs["label"]) == [b"yes", b"yes"]
            assert unpack_floats(outputs["score"], "FP32") == [0.75, 0.75]
        else:
            assert JSON_LENGTH not in answer.headers
            assert outputs_of(answer)["label"]["data"] == ["yes", "yes"]
    assert [[query.document for query in batch] for batch in engine.batches] == [["left", "rächts"]] * 2


async def test_an_output_says_for_itself_whether_it_is_binary(rest: RestCaller) -> None:
    outputs = [{"name": "score", "parameters": {"binary_data": False}}, {"name": "label"}]
    answer = await rest.post(INFER, documents("a", outputs=outputs, parameters={"binary_data_output": True}))
    described, binary = binary_outputs_of(answer)
    assert [output["name"] for output in described["outputs"]] == ["score", "label"]
    assert described["outputs"][0]["data"] == [0.75]
    assert {name: unpack_bytes(data) for name, data in binary.items()} == {"label": [b"yes"]}


async def test_classes_may_be_binary(rest: RestCaller) -> None:
    wanted = [{"name": "score", "parameters": {"classification": 1, "binary_data": True}}]
    _, binary = binary_outputs_of(await rest.post(INFER, documents("a", outputs=wanted)))
    assert unpack_bytes(binary["score"]) == [b"0.750000:1:yes"]


def _more(request: Any) -> None:
    request["inputs"][0]["parameters"]["binary_data_size"] += 1


def _less(request: Any) -> None:
    request["inputs"][0]["parameters"]["binary_data_size"] -= 1


def _negative(request: Any) -> None:
    request["inputs"][0]["parameters"]["binary_data_size"] = -1


def _text(request: Any) -> None:
    request["inputs"][0]["parameters"]["binary_data_size"] = "5"


def _truth(request: Any) -> None:
    request["inputs"][0]["parameters"]["binary_data_size"] = True


def _twice(request: Any) -> None:
    request["inputs"][0]["data"] = ["a"]


def _neither(request: Any) -> None:
    del request["inputs"][0]["parameters"]


def _no_flag(request: Any) -> None:
    request["parameters"] = {"binary_data_output": "yes"}


@pytest.mark.parametrize("change", [_more, _less, _negative, _text, _truth, _twice, _neither, _no_flag])
async def test_binary_data_that_are_not_as_their_parameters_say_are_refused(
    change: Callable[[Any], None], rest: RestCaller
) -> None:
    packed = pack_bytes([b"a"])
    request = binary_document(len(packed))
    change(request)
    body, headers = with_binary(request, packed)
    answer = await rest.post(INFER, body, **headers)
    assert answer.status == 400
    assert "binary_data" in answer.error


@pytest.mark.parametrize("length", ["", "-1", "1.0", "x", "999999", "9" * 5000, "²", "0x10"], ids=lambda text: text[:8])
async def test_a_length_of_the_json_that_cannot_be_is_refused(length: str, rest: RestCaller) -> None:
    answer = await rest.post(INFER, documents("a"), inference_header_content_length=length)
    assert answer.status == 400
    assert JSON_LENGTH in answer.error


# Compression


COMPRESSED: dict[str, Change] = {"gzip": gzip.compress, "deflate": zlib.compress}
OPENED: dict[str, Change] = {"gzip": gzip.decompress, "deflate": zlib.decompress}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP", "identity", ""])
async def test_bodies_may_be_compressed(encoding: str, rest: RestCaller) -> None:
    packed = pack_bytes([b"a"])
    body, headers = with_binary(binary_document(len(packed)), packed)
    sent = COMPRESSED.get(encoding.lower(), bytes)(body)
    assert (await rest.post(INFER, sent, content_encoding=encoding, **headers)).status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("damage", [lambda body: body[:-9], lambda body: b"no" + body, lambda body: body + b"x", bytes])
async def test_bodies_that_are_not_compressed_as_they_say_are_refused(
    damage: Change, encoding: str, rest: RestCaller
) -> None:
    body = json.dumps(documents("a")).encode()
    body = body if damage is bytes else damage(COMPRESSED[encoding](body))
    answer = await rest.post(INFER, body, content_encoding=encoding)
    assert (answer.status, "content-encoding" in answer.error) == (400, True)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"), ("deflate", "deflate"), ("br, gzip;q=0.5, deflate", "gzip"), ("gzip;q=0, deflate", "deflate"),
        ("GZIP", "gzip"), ("gzip; q=0.000", None), ("br", None), ("", None), ("identity", None),
    ],
)  # fmt: skip
async def test_large_answers_are_compressed_for_who_takes_that(
    accepted: str, encoding: str | None, rest: RestCaller
) -> None:
    request = documents("a", id="x" * 2000)
    plain = await rest.post(INFER, request)
    answer = await rest.post(INFER, request, accept_encoding=accepted)
    assert answer.headers.get("content-encoding") == encoding
    assert (OPENED[encoding](answer.body) if encoding else answer.body) == plain.body


async def test_small_answers_are_sent_as_they_are(rest: RestCaller) -> None:
    assert "content-encoding" not in (await rest.get("/v2", accept_encoding="gzip")).headers


@pytest.mark.parametrize("place", ["request", "input", "output"])
async def test_null_within_parameters_stands_for_no_value(place: str, rest: RestCaller) -> None:
    """As mlserver's ``InferenceRequest.dict()`` writes every parameter that is not set."""
    parameters = {"content_type": "str", "headers": None, "threshold": None}
    of = {place: {"parameters": parameters}}
    tensor = {"name": "document", "shape": [1], "datatype": "BYTES", "parameters": None, "data": ["a"]}
    body = {
        "id": None,
        "parameters": None,
        "outputs": [{"name": "label"} | of.get("output", {})],
        "inputs": [tensor | of.get("input", {})],
    }
    answer = await rest.post(INFER, body | of.get("request", {}))
    assert list(outputs_of(answer)) == ["label"]


async def test_what_is_no_value_of_a_parameter_is_refused_beside_null(rest: RestCaller) -> None:
    body = documents("a") | {"parameters": {"a": None, "b": [1]}}
    answer = await rest.post(INFER, body)
    assert (answer.status, "strings, numbers, true or false" in answer.error) == (400, True)


@pytest.mark.parametrize("keep_alive", [False, True])
async def test_http_1_0_is_answered_as_nginx_sends_it_unless_told_otherwise(keep_alive: bool, rest: RestCaller) -> None:
    body = json.dumps(documents("a")).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", rest.port)
    connection = "keep-alive" if keep_alive else "close"
    head = f"POST {INFER} HTTP/1.0\r\nHost: backend\r\nConnection: {connection}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(PATIENCE):
        # The end of the connection is the end of the answer.
        answer = await reader.read()
    writer.close()
    first, _, content = answer.partition(b"\r\n\r\n")
    assert first.split()[1] == b"200"
    assert b"transfer-encoding" not in first.lower()
    assert json.loads(content)["outputs"]
