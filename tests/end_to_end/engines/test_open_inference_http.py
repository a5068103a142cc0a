"""curl, and the real, unmodified HTTP clients of Triton and KServe, against a running frontend and predictor."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from serving.client import IntentClient, Prediction, Query
from serving.wire.residency_client import ask_residency
from tests.builders import PATIENCE, publish, refusing_address
from tests.conftest import ROOT
from tests.end_to_end.engines.clients.foreign_client import ForeignClient, foreign_client
from tests.end_to_end.processes import Stack, running_service, stack, start
from tests.samples import copy_samples

pytestmark = pytest.mark.slow

MODEL = "clinc150"
CLASSES = 151
DOCUMENTS = ["make a 10 minute timer", "what is my balance", "", "¿qué hora es? 🕐"]
HTTP = "http2"
"""Transport that accepts plain HTTP."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Both services over the sample models and one model that no engine serves."""
    models = tmp_path_factory.mktemp("volume") / "models"
    copy_samples(models)
    publish(models, "foreign", Algorithm="image-segmentation", files={})
    with stack(models, tmp_path_factory.mktemp("logs"), transport=HTTP) as both:
        yield both


@pytest.fixture(scope="module", params=["sync", "aio"])
def triton(request: pytest.FixtureRequest, running: Stack) -> Iterator[ForeignClient]:
    with foreign_client("triton_clients", "http_triton.py", request.param, running.frontend.address) as client:
        yield client


@pytest.fixture(scope="module")
def kserve(running: Stack) -> Iterator[ForeignClient]:
    with foreign_client("kserve_client", "http_kserve.py", f"http://{running.frontend.address}") as client:
        yield client


@pytest.fixture
def ours(running: Stack) -> Iterator[Callable[..., list[Prediction]]]:
    """A function that returns the product's own answers to documents."""
    with IntentClient(running.frontend.address, timeout=PATIENCE) as client:

        def predictions(documents: Sequence[str], k: int = 0, threshold: float | None = None) -> list[Prediction]:
            outcomes = client.predict_batch([Query(MODEL, document, k, threshold) for document in documents])
            assert all(isinstance(outcome, Prediction) for outcome in outcomes)
            return [outcome for outcome in outcomes if isinstance(outcome, Prediction)]

        yield predictions


def curl(address: str, path: str, *flags: str, data: Any = None) -> tuple[int, Any]:
    """Return the status and the JSON that the real curl receives."""
    tool = shutil.which("curl")
    if tool is None:
        pytest.skip("no curl on the PATH")
    sent = [] if data is None else ["--data-binary", data if isinstance(data, str) else json.dumps(data)]
    command = [tool, "-sS", "-w", "\n%{http_code}", *flags, *sent, f"http://{address}{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def request_of(*documents: str, **keys: Any) -> dict[str, Any]:
    tensor = {"name": "document", "datatype": "BYTES", "shape": [len(documents)], "data": documents}
    return {"inputs": [tensor], **keys}


def tensor(documents: Sequence[Any], **fields: Any) -> dict[str, Any]:
    """Return an order for the input, as a client's user would make it."""
    return {"data": list(documents), "shape": [len(documents), 1], "datatype": "BYTES"} | fields


def scores_of(predictions: Sequence[Prediction]) -> Any:
    return pytest.approx([prediction.score for prediction in predictions], abs=1e-6)


# curl


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_asks_over_both_versions_of_http(version: str, running: Stack, ours: Callable[..., Any]) -> None:
    # curl declares the body as a form.
    path = f"/v2/models/{MODEL}/infer"
    status, answer = curl(running.frontend.address, path, version, data=request_of(*DOCUMENTS, id="7"))
    label, score = answer["outputs"]
    assert (status, answer["model_name"], answer["model_version"], answer["id"]) == (200, MODEL, "1.0", "7")
    assert label["data"] == [prediction.label for prediction in ours(DOCUMENTS)]
    assert score["data"] == scores_of(ours(DOCUMENTS))


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        (f"/v2/models/{MODEL}/ready", {"name": MODEL, "ready": True}),
        # A percent-encoded path is decoded once.
        ("/v2/models/clinc%3150/ready", {"name": MODEL, "ready": True}),
    ],
)
def test_curl_sees_what_is_ready(path: str, answer: Any, running: Stack) -> None:
    assert curl(running.frontend.address, path) == (200, answer)


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("/v2/models/unknown", None, 404),
        ("/v2/models/..%2f..%2fetc%2fpasswd", None, 404),
        ("/v2/models/clinc%253150", None, 404),
        ("/v2/models/%00", None, 404),
        ("/nothing", None, 404),
        (f"/v2/models/{MODEL}/infer", None, 405),
        (f"/v2/models/{MODEL}/infer", "document=hello", 400),
        (f"/v2/models/{MODEL}/infer", request_of("x" * 70_000), 400),
        ("/v2/models/unknown/infer", request_of("a"), 404),
        ("/v2/models/foreign/infer", request_of("a"), 400),
        (f"/v2/models/{MODEL}/infer", request_of("a", parameters={"timeout": 1}), 504),
    ],
    ids=lambda value: str(value)[:40],
)
def test_curl_is_told_what_is_wrong(path: str, data: Any, status: int, running: Stack) -> None:
    found, answer = curl(running.frontend.address, path, "--path-as-is", data=data)
    assert (found, list(answer)) == (status, ["error"])
    assert curl(running.frontend.address, "/v2/health/live") == (200, {"live": True})


def test_a_body_that_is_too_large_is_refused_to_curl(running: Stack, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b" " * (1 << 21))
    for flags in ((), ("-H", "Transfer-Encoding: chunked")):
        found, answer = curl(running.frontend.address, f"/v2/models/{MODEL}/infer", *flags, data=f"@{large}")
        assert (found, list(answer)) == (413, ["error"])


def test_grpc_and_rest_are_served_on_one_port_side_by_side(running: Stack, ours: Callable[..., Any]) -> None:
    for _ in range(3):
        assert curl(running.frontend.address, "/v2/health/live")[0] == 200
        assert ours(["hello"])


# Triton's clients


def test_the_server_is_live_ready_and_tells_what_it_can(triton: ForeignClient) -> None:
    assert triton.ask("is_server_live") is True
    assert triton.ask("is_server_ready") is True
    metadata = triton.ask("get_server_metadata")
    assert metadata["name"] == "intent-serving"
    assert {"classification", "model_repository", "statistics"} <= set(metadata["extensions"])


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [(MODEL, "", True), (MODEL, "1.0", True), (MODEL, "2", False), ("foreign", "", False), ("unknown", "", False)],
)
def test_models_are_ready_where_they_can_be_asked(triton: ForeignClient, name: str, version: str, ready: bool) -> None:
    assert triton.ask("is_model_ready", model_name=name, model_version=version) is ready


def test_a_model_tells_its_tensors_and_its_configuration(triton: ForeignClient) -> None:
    metadata = triton.ask("get_model_metadata", model_name=MODEL)
    config = triton.ask("get_model_config", model_name=MODEL)
    assert metadata["inputs"] == [{"name": "document", "datatype": "BYTES", "shape": [-1, 1]}]
    assert [output["name"] for output in metadata["outputs"]] == ["label", "score"]
    assert config["input"] == [{"name": "document", "data_type": "TYPE_STRING", "dims": [1]}]
    assert config["max_batch_size"] > 1


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
@pytest.mark.parametrize("algorithm", ["gzip", "deflate", None])
def test_documents_are_answered_as_the_product_does(
    algorithm: str | None, binary: bool, triton: ForeignClient, ours: Callable[..., list[Prediction]]
) -> None:
    # Enough documents to make the answer worth compressing.
    documents = DOCUMENTS * 64
    answer = triton.ask(
        "infer",
        model_name=MODEL,
        binary=binary,
        inputs=[tensor(documents)],
        outputs=[{"name": "label", "binary_data": binary}, {"name": "score", "binary_data": binary}],
        request_id="request 7",
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    expected = ours(documents)
    assert (answer["model"], answer["version"], answer["id"]) == (MODEL, "1.0", "request 7")
    assert answer["binary"] == (2 if binary else 0)
    assert answer["shapes"] == {"label": [len(documents), 1], "score": [len(documents), 1]}
    assert answer["outputs"]["label"] == [prediction.label for prediction in expected]
    assert answer["outputs"]["score"] == scores_of(expected)


def test_without_outputs_all_come_as_the_client_asks(triton: ForeignClient) -> None:
    answer = triton.ask("infer", model_name=MODEL, binary=True, inputs=[tensor(["hello"])])
    assert (set(answer["outputs"]), answer["binary"]) == ({"label", "score"}, 2)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_a_threshold_holds_and_what_fell_back_and_why_is_told_on_request(
    binary: bool, triton: ForeignClient, ours: Callable[..., list[Prediction]]
) -> None:
    names = ("label", "score", "best_label", "best_score", "explanation")
    answer = triton.ask(
        "infer",
        model_name=MODEL,
        binary=binary,
        inputs=[tensor(DOCUMENTS)],
        outputs=[{"name": name, "binary_data": binary} for name in names],
        parameters={"threshold": 1.0},
    )["outputs"]
    expected, best = ours(DOCUMENTS, threshold=1.0), ours(DOCUMENTS, threshold=0.0)
    assert any(prediction.fallback for prediction in expected)
    assert answer["label"] == [prediction.label for prediction in expected]
    assert answer["score"] == scores_of(expected)
    assert answer["best_label"] == [prediction.label for prediction in best]
    assert answer["best_score"] == scores_of(best)
    explained = [json.loads(text)["labels"] for text in answer["explanation"]]
    assert [label["label"] for (label,) in explained] == answer["best_label"]


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
@pytest.mark.parametrize("count", [3, CLASSES])
def test_classes_are_told(
    count: int, binary: bool, triton: ForeignClient, ours: Callable[..., list[Prediction]]
) -> None:
    wanted = [{"name": "score", "class_count": count, "binary_data": binary}]
    inputs = [tensor(DOCUMENTS[:2])]
    answer = triton.ask("infer", model_name=MODEL, binary=binary, inputs=inputs, outputs=wanted)
    told = [element.split(":", 2) for element in answer["outputs"]["score"]]
    best = [best for prediction in ours(DOCUMENTS[:2], count) for best in prediction.best]
    assert answer["shapes"] == {"score": [2, count]}
    assert [label for _, _, label in told] == [one.label for one in best]


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({"model_name": "unknown", "inputs": [tensor(["a"])]}, "404"),
        ({"model_name": MODEL, "model_version": "2", "inputs": [tensor(["a"])]}, "404"),
        ({"model_name": "foreign", "inputs": [tensor(["a"])]}, "400"),
        ({"model_name": MODEL, "inputs": []}, "400"),
        ({"model_name": MODEL, "inputs": [tensor(["a"], name="text")]}, "400"),
        ({"model_name": MODEL, "inputs": [tensor(["a", "b"], shape=[1, 2])]}, "400"),
        ({"model_name": MODEL, "inputs": [tensor([1.0], datatype="FP32", numpy="float32")]}, "400"),
        ({"model_name": MODEL, "inputs": [tensor(["a"])], "outputs": [{"name": "logits"}]}, "400"),
        ({"model_name": MODEL, "inputs": [tensor(["x" * 70_000])]}, "400"),
        ({"model_name": MODEL, "inputs": [tensor(["x" * 60_000] * 20)]}, "413"),
        ({"model_name": MODEL, "inputs": [tensor(["a"])], "timeout": 1}, "504"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_wrong_is_told(order: dict[str, Any], status: str, triton: ForeignClient) -> None:
    for binary in (True, False):
        code, message = triton.refusal("infer", **order, binary=binary)
        assert (code, bool(message)) == (status, True)
    assert triton.ask("is_server_live") is True


def test_models_are_listed_loaded_unloaded_and_counted(triton: ForeignClient, running: Stack) -> None:
    index = {model["name"]: model["state"] for model in triton.ask("get_model_repository_index")}
    assert (index[MODEL], index["foreign"]) == ("READY", "UNAVAILABLE")

    triton.ask("load_model", model_name="clinc150-travel")
    assert "clinc150-travel" in _resident(running)
    triton.ask("unload_model", model_name="clinc150-travel")
    assert "clinc150-travel" not in _resident(running)

    before = _counted(triton)
    triton.ask("infer", model_name=MODEL, binary=True, inputs=[tensor(DOCUMENTS)])
    assert _counted(triton) == before + len(DOCUMENTS)


def _resident(running: Stack) -> set[str]:
    return {model.id for model in ask_residency(running.predictor.address).models}


def _counted(triton: ForeignClient) -> int:
    (counted,) = triton.ask("get_inference_statistics", model_name=MODEL)["model_stats"]
    return int(counted["inference_count"])


# KServe's client


def test_kserve_sees_what_is_live_and_ready(kserve: ForeignClient) -> None:
    assert kserve.ask("call", method="is_server_live") is True
    assert kserve.ask("call", method="is_server_ready") is True
    assert kserve.ask("call", method="is_model_ready", model_name=MODEL) is True
    assert kserve.ask("call", method="is_model_ready", model_name="unknown") is False


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
@pytest.mark.parametrize("binary_outputs", [True, False], ids=["binary outputs", "outputs in JSON"])
def test_kserve_is_answered_as_the_product_does(
    binary: bool, binary_outputs: bool, kserve: ForeignClient, ours: Callable[..., list[Prediction]]
) -> None:
    parameters = {"binary_data": binary_outputs}
    answer = kserve.ask(
        "infer",
        model=MODEL,
        binary=binary,
        documents=DOCUMENTS,
        shape=[len(DOCUMENTS), 1],
        id="8",
        outputs=[{"name": "label", "parameters": parameters}, {"name": "score", "parameters": parameters}],
    )
    expected = ours(DOCUMENTS)
    assert (answer["model"], answer["id"]) == (MODEL, "8")
    assert answer["outputs"]["label"] == [prediction.label for prediction in expected]
    assert answer["outputs"]["score"] == scores_of(expected)


def test_kserve_is_told_what_is_wrong(kserve: ForeignClient) -> None:
    code, message = kserve.refusal("infer", model="unknown", binary=False, documents=["a"], shape=[1])
    assert (code, "no model has this name" in message) == ("404", True)


# The service's life


def test_a_frontend_whose_engine_is_away_is_live_and_not_ready(volume: Path, tmp_path: Path) -> None:
    publish(volume, "model")
    routes = f"intent-classification=predictor://{refusing_address()}"
    service = start("frontend", volume, tmp_path, "--routes", routes, transport=HTTP)
    try:
        address = service.wait_until_logged("listening")["address"]
        assert curl(address, "/v2/health/live") == (200, {"live": True})
        assert curl(address, "/v2/health/ready") == (503, {"ready": False})
        status, answer = curl(address, "/v2/models/model/infer", data=request_of("a"))
        assert (status, list(answer)) == (503, ["error"])
    finally:
        service.kill()


def test_a_call_under_way_is_answered_before_the_service_ends(tmp_path: Path) -> None:
    flags = ("--max-in-flight", "1")
    with running_service("model_service", ROOT / "models", tmp_path, *flags, transport=HTTP) as service:
        body = json.dumps(request_of("make a 10 minute timer")).encode()
        host, _, port = service.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            head = f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body[:10])
            # The service has a slot for one call: once this one is under way, others are refused.
            deadline = time.monotonic() + PATIENCE
            while curl(service.address, "/v2/health/live")[0] != 429:
                assert time.monotonic() < deadline
            service.process.terminate()
            service.wait_until_logged("draining")
            connection.sendall(body[10:])
            answer = b""
            while piece := connection.recv(1 << 16):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b'"timer"' in answer
        assert service.process.wait(PATIENCE) == 0
