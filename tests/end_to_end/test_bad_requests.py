"""Invalid requests: ids, documents, and bytes on the wire."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from serving.client import IntentClient
from serving.domain.errors import InvalidRequest, ServingError
from serving.stubs import prediction_service_pb2 as pb
from tests.conftest import ROOT
from tests.end_to_end.processes import Stack, stack, transports

PREDICT = "/prediction.PredictionService/Predict"
MODEL = "clinc150"
LIMIT = 1 << 16

BAD_IDS = [
    "", ".", "..", "../../etc", "/etc", "a/../b", "a\\..\\b", "%2e%2e%2f", "a\x00b", "a\n", "a\r\nforged log line",
    "\x1b[31mred", "ＡＢＣ", "٣", "caf\u00e9", "cafe\u0301", "a\u200bb", "a\u202eb", "a" * 129, "é" * 128, "a" * 99_999,
    "..data", ".tmp-1", "a b", "a:b", "~", "*", "$(id)", "{{7*7}}", "\U0001f600",
]  # fmt: skip

DOCUMENTS = {
    "empty": "",
    "only spaces": "   \t \n ",
    "unknown tokens": "qzxv wpfg 日本 zzzz",
    "control characters": "what\x00is\x01my\x07balance\x1b[31m",
    "emoji": "🏴󠁧󠁢󠁥󠁮󠁧󠁿 😀👩‍👩‍👧‍👦" * 40,
    "combining flood": "e" + "\u0301" * 20_000,
    "one token as long as the limit": "a" * LIMIT,
    "one byte less than the limit": "b" * (LIMIT - 1),
    "many tokens": "a " * (LIMIT // 2),
    "right to left": "مرحبا שלום \u202e",
}


@pytest.fixture(scope="module", params=transports())
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Both services over the sample models, on each transport."""
    with stack(ROOT / "models", tmp_path_factory.mktemp("logs"), transport=request.param) as both:
        yield both


@pytest.fixture
def client(running: Stack) -> Iterator[IntentClient]:
    with IntentClient(running.frontend.address, timeout=30) as made:
        yield made


@pytest.mark.parametrize("model_id", BAD_IDS, ids=lambda model_id: ascii(model_id)[:24])
def test_a_bad_model_id_is_an_invalid_argument_at_both_services(running: Stack, model_id: str) -> None:
    for method, request in (
        (PREDICT, pb.PredictRequest(runId=model_id, document="hello")),
        ("/prediction.Predictor/PredictorPredict", pb.PredictorPredictRequest(runId=model_id, document="hello")),
    ):
        address = running.frontend.address if method == PREDICT else running.predictor.address
        error = failure(address, request.SerializeToString(), method)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "runId must be" in (error.details() or "")


@pytest.mark.parametrize("model_id", ["x_model", "x_vocab", "clinc150_model", "CLINC150"])
def test_ids_that_only_look_like_another_are_unknown(running: Stack, model_id: str) -> None:
    error = failure(running.frontend.address, pb.PredictRequest(runId=model_id).SerializeToString())

    assert error.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_every_document_within_the_limit_gets_an_answer(client: IntentClient, document: str) -> None:
    prediction = client.predict(MODEL, document, k=200)

    best = prediction.fallback.best.label if prediction.fallback else prediction.label
    assert best == prediction.best[0].label
    assert prediction.label in (best, "oos")
    assert sum(best.score for best in prediction.best) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("document", ["a" * (LIMIT + 1), "é" * (LIMIT // 2) + "e"], ids=["one byte more", "multi-byte"])
def test_a_document_over_the_limit_is_an_invalid_argument(client: IntentClient, document: str) -> None:
    with pytest.raises(InvalidRequest, match="65536 bytes"):
        client.predict(MODEL, document)


def test_a_message_over_the_limit_fails_alone(client: IntentClient) -> None:
    with pytest.raises(ServingError) as refusal:
        client.predict(MODEL, "a" * (1 << 20))

    assert refusal.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.predict(MODEL, "make a 10 minute timer").label == "timer"


def test_a_batch_over_the_limit_is_an_invalid_argument(running: Stack) -> None:
    batch = pb.PredictBatchRequest(requests=[pb.PredictRequest(runId=MODEL)] * 4097)
    error = failure(running.frontend.address, batch.SerializeToString(), "/prediction.PredictionService/PredictBatch")

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 4096" in (error.details() or "")


def test_a_batch_that_asks_for_too_many_labels_is_an_invalid_argument(running: Stack) -> None:
    batch = pb.PredictBatchRequest(requests=[pb.PredictRequest(runId=MODEL, k=1000)] * 100)
    error = failure(running.frontend.address, batch.SerializeToString(), "/prediction.PredictionService/PredictBatch")

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "best labels" in (error.details() or "")


GOOD = pb.PredictRequest(runId=MODEL, document="make a 10 minute timer").SerializeToString()
BAD_BYTES = {
    "truncated": GOOD[:-3],
    "a wrong wire type for runId": b"\x18\x05" + b"\x23",
    "bytes FF FE as text": b"\x22\x02\xff\xfe" + b"\x1a\x08clinc150",
    "overlong C0 AF as text": b"\x22\x02\xc0\xaf" + b"\x1a\x08clinc150",
    "a lone surrogate as text": b"\x22\x03\xed\xa0\x80" + b"\x1a\x08clinc150",
    "garbage": b"\xff" * 64,
    "a length beyond the end": b"\x1a\xff\xff\xff\xff\x0f",
}


@pytest.mark.parametrize("data", BAD_BYTES.values(), ids=BAD_BYTES.keys())
def test_bytes_that_are_no_message_are_an_invalid_argument(running: Stack, data: bytes) -> None:
    error = failure(running.frontend.address, data)

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Decode" not in (error.details() or "")


def test_unknown_and_duplicate_fields_are_read_as_protobuf_says(running: Stack) -> None:
    unknown = b"\xfa\x3f\x05extra"
    twice = pb.PredictRequest(runId="first").SerializeToString() + GOOD

    for data in (GOOD + unknown, unknown + GOOD, twice):
        answer = pb.PredictResponse.FromString(raw_call(running.frontend.address, data))
        assert answer.response == '{"result": "timer"}'


def test_a_gzip_bomb_is_refused_and_the_service_lives(running: Stack, client: IntentClient) -> None:
    bomb = pb.PredictRequest(runId=MODEL, document="a" * (32 << 20)).SerializeToString()
    error = failure(running.frontend.address, bomb, compression=grpc.Compression.Gzip)

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.predict(MODEL, "make a 10 minute timer").label == "timer"


def test_seventeen_kilobytes_of_metadata_are_refused(running: Stack) -> None:
    error = failure(running.frontend.address, GOOD, metadata=[("x-large", "a" * 17_000)])

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_deadline_of_zero_is_exceeded(running: Stack) -> None:
    error = failure(running.frontend.address, GOOD, timeout=0)

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_header_that_promises_a_gigabyte_and_stalls_blocks_nobody(running: Stack, client: IntentClient) -> None:
    host, port = running.frontend.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        http.initiate_connection()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", PREDICT), (":authority", "localhost"),
                   ("content-type", "application/grpc"), ("te", "trailers")]  # fmt: skip
        http.send_headers(1, headers)
        http.send_data(1, b"\x00\x40\x00\x00\x00")
        connection.sendall(http.data_to_send())

        assert client.predict(MODEL, "make a 10 minute timer").label == "timer"
        assert status_of_stream(connection, http) == "8", "refused by its promise, before it is sent"


def status_of_stream(connection: socket.socket, http: h2.connection.H2Connection) -> str:
    """Return the grpc-status that ends the stream."""
    while True:
        for event in http.receive_data(connection.recv(65_536)):
            if isinstance(event, h2.events.TrailersReceived | h2.events.ResponseReceived):
                found = {bytes(key): bytes(value) for key, value in event.headers or ()}
                if status := found.get(b"grpc-status"):
                    return status.decode()
        connection.sendall(http.data_to_send())


def raw_call(address: str, data: bytes, method: str = PREDICT, **options: Any) -> bytes:
    """Send ``data`` unchanged and return the bytes of the answer."""
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(method)
        return bytes(call(data, **{"timeout": 30} | options))


def failure(address: str, data: bytes, method: str = PREDICT, **options: Any) -> Any:
    """Send ``data`` unchanged and return the call's error."""
    with pytest.raises(grpc.RpcError) as refusal:
        raw_call(address, data, method, **options)
    return refusal.value
