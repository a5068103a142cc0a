"""Real, unmodified gRPC clients of Triton and KServe against a running frontend and predictor."""

from __future__ import annotations

import base64
import json
import math
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from peers.environments import CannotInstall
from peers.perf_analyzer import perf_analyzer
from serving.client import IntentClient, Prediction, Query, ScoredLabel
from serving.wire.raw_tensors import pack_bytes
from serving.wire.residency_client import ask_residency
from tests.builders import PATIENCE, free_port, publish
from tests.conftest import ROOT, shared
from tests.end_to_end.engines.clients.foreign_client import ForeignClient, foreign_client
from tests.end_to_end.processes import Service, Stack, stack, start, transports
from tests.samples import copy_samples

pytestmark = pytest.mark.slow

MODEL = "clinc150"
CLASSES = 151
DOCUMENTS = ["make a 10 minute timer", "what is my balance", "", "¿qué hora es? 🕐"]
MOST_DOCUMENTS = 64
THRESHOLD = 0.9
"""Threshold below the scores of some of the documents and above those of the others."""


@pytest.fixture(scope="module", params=transports())
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Both services over the sample models and one model that no engine serves, on each transport."""
    models = tmp_path_factory.mktemp("volume") / "models"
    copy_samples(models)
    publish(models, "foreign", Algorithm="image-segmentation", files={})
    flags = ("--max-batch-size", str(MOST_DOCUMENTS))
    with stack(models, tmp_path_factory.mktemp("logs"), frontend=flags, transport=request.param) as both:
        yield both


@pytest.fixture(scope="module", params=["sync", "aio"])
def triton(request: pytest.FixtureRequest, running: Stack) -> Iterator[ForeignClient]:
    with foreign_client("triton_clients", "triton_grpc.py", request.param, running.frontend.address) as client:
        yield client


@pytest.fixture(scope="module")
def kserve(running: Stack) -> Iterator[ForeignClient]:
    with foreign_client("kserve_client", "kserve_grpc.py", running.frontend.address) as client:
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


def tensor(documents: Sequence[str], *, column: bool = True, **fields: Any) -> dict[str, Any]:
    """Return an order for the input, as a client's user would make it."""
    shape = [len(documents), 1] if column else [len(documents)]
    return {"data": list(documents), "shape": shape, "datatype": "BYTES"} | fields


def message(*documents: str, **fields: Any) -> dict[str, Any]:
    """Return a typed request in protobuf's JSON form."""
    contents = {"bytes_contents": [encoded(document.encode()) for document in documents]}
    return {
        "model_name": MODEL,
        "inputs": [{"name": "document", "datatype": "BYTES", "shape": [len(documents)], "contents": contents}],
    } | fields


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


# Triton's clients


def test_the_server_is_live_ready_and_tells_what_it_can(triton: ForeignClient) -> None:
    assert triton.ask("is_server_live") is True
    assert triton.ask("is_server_ready") is True
    assert triton.ask("get_server_metadata", as_json=True) == {
        "name": "intent-serving",
        "version": "0.1.0",
        "extensions": ["classification", "model_repository", "model_configuration", "statistics", "binary_tensor_data"],
    }


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [(MODEL, "", True), (MODEL, "1.0", True), (MODEL, "2", False), ("foreign", "", False), ("unknown", "", False)],
)
def test_models_are_ready_where_they_can_be_asked(triton: ForeignClient, name: str, version: str, ready: bool) -> None:
    assert triton.ask("is_model_ready", model_name=name, model_version=version) is ready


def test_a_model_tells_its_tensors_and_its_configuration(triton: ForeignClient) -> None:
    metadata = triton.ask("get_model_metadata", model_name=MODEL, as_json=True)
    config = triton.ask("get_model_config", model_name=MODEL, as_json=True)["config"]

    assert (metadata["name"], metadata["versions"]) == (MODEL, ["1.0"])
    assert metadata["inputs"] == [{"name": "document", "datatype": "BYTES", "shape": ["-1", "1"]}]
    assert metadata["outputs"] == [
        {"name": "label", "datatype": "BYTES", "shape": ["-1", "1"]},
        {"name": "score", "datatype": "FP32", "shape": ["-1", "1"]},
    ]
    assert (config["name"], config["max_batch_size"]) == (MODEL, MOST_DOCUMENTS)
    assert [(part["name"], part["data_type"]) for part in config["input"] + config["output"]] == [
        ("document", "TYPE_STRING"), ("label", "TYPE_STRING"), ("score", "TYPE_FP32"),
    ]  # fmt: skip
    assert "dynamic_batching" in config


@pytest.mark.parametrize("column", [True, False], ids=["[n, 1]", "[n]"])
@pytest.mark.parametrize("documents", [DOCUMENTS[:1], DOCUMENTS], ids=["one", "several"])
def test_documents_are_answered_as_predict_answers_them(
    triton: ForeignClient, ours: Callable[..., list[Prediction]], documents: list[str], column: bool
) -> None:
    expected = ours(documents)
    inputs = [tensor(documents, column=column)]
    answer = triton.ask("infer", model_name=MODEL, model_version="1.0", request_id="id 7", inputs=inputs)

    assert (answer["model"], answer["version"], answer["id"]) == (MODEL, "1.0", "id 7")
    assert answer["outputs"]["label"] == [prediction.label for prediction in expected]
    assert answer["outputs"]["score"] == pytest.approx([prediction.score for prediction in expected])
    assert answer["shapes"] == {"label": inputs[0]["shape"], "score": inputs[0]["shape"]}
    assert answer["types"] == {"label": "BYTES", "score": "FP32"}
    assert answer["raw"] == 2


def test_typed_documents_are_answered_typed(triton: ForeignClient, ours: Callable[..., list[Prediction]]) -> None:
    answer = triton.ask("message", request=message(*DOCUMENTS, id="8"))

    label, score = answer["outputs"]
    assert answer["id"] == "8"
    assert "raw_output_contents" not in answer
    assert [base64.b64decode(text).decode() for text in label["contents"]["bytes_contents"]] == [
        prediction.label for prediction in ours(DOCUMENTS)
    ]
    assert score["contents"]["fp32_contents"] == pytest.approx([prediction.score for prediction in ours(DOCUMENTS)])


def test_outputs_come_as_they_were_asked_for(triton: ForeignClient) -> None:
    wanted = [{"name": "score"}, {"name": "label"}]
    for outputs in (wanted[:1], wanted):
        answer = triton.ask("infer", model_name=MODEL, inputs=[tensor(DOCUMENTS)], outputs=outputs)
        assert list(answer["types"]) == [output["name"] for output in outputs]


@pytest.mark.parametrize("name", ["score", "label"])
@pytest.mark.parametrize("count", [1, 3, 1000])
def test_classes_come_as_triton_writes_them_of_either_output(
    triton: ForeignClient, ours: Callable[..., list[Prediction]], count: int, name: str, running: Stack
) -> None:
    other = {"score": "label", "label": "score"}[name]
    outputs = [{"name": other}, {"name": name, "class_count": count}]
    answer = triton.ask("infer", model_name=MODEL, inputs=[tensor(DOCUMENTS[:2])], outputs=outputs)

    expected = ours(DOCUMENTS[:2], min(count, CLASSES))
    manifest = json.loads((running.models / MODEL / "manifest.json").read_text())
    index_of = {label: index for index, label in manifest["classes"].items()}
    assert answer["shapes"][name] == [2, min(count, CLASSES)]
    assert answer["outputs"][name] == [
        f"{best.score:f}:{index_of[best.label]}:{best.label}" for prediction in expected for best in prediction.best
    ]
    assert len(answer["outputs"][other]) == len(expected)


def test_a_threshold_holds_for_the_request_and_what_fell_back_is_told_on_request(
    triton: ForeignClient, ours: Callable[..., list[Prediction]]
) -> None:
    outputs = [{"name": name} for name in ("label", "score", "best_label", "best_score")]
    order = {"model_name": MODEL, "inputs": [tensor(DOCUMENTS)], "outputs": outputs}
    answer = triton.ask("infer", parameters={"threshold": THRESHOLD}, **order)["outputs"]

    assert_fell_back(answer, ours(DOCUMENTS, threshold=THRESHOLD))
    code, message = triton.refusal("infer", parameters={"threshold": 1.5}, **order)
    assert (code, "from 0 to 1" in message) == ("INVALID_ARGUMENT", True)


def assert_fell_back(outputs: Any, expected: Sequence[Prediction]) -> None:
    """Check that the outputs contain what Predict answers, and what it would answer without a threshold."""
    best = [
        ScoredLabel(prediction.label, prediction.score) if prediction.fallback is None else prediction.fallback.best
        for prediction in expected
    ]
    fell_back = [prediction.fallback is not None for prediction in expected]
    assert any(fell_back)
    assert not all(fell_back)
    assert outputs["label"] == [prediction.label for prediction in expected]
    assert outputs["score"] == pytest.approx([prediction.score for prediction in expected], abs=1e-6)
    assert outputs["best_label"] == [label for label, _ in best]
    assert outputs["best_score"] == pytest.approx([score for _, score in best], abs=1e-6)


def test_an_explanation_is_given_as_json(triton: ForeignClient, running: Stack) -> None:
    order = {"model_name": MODEL, "inputs": [tensor(DOCUMENTS)], "outputs": [{"name": "explanation"}]}
    explanations = [json.loads(text) for text in triton.ask("infer", **order)["outputs"]["explanation"]]

    with IntentClient(running.frontend.address, timeout=PATIENCE) as client:
        expected = [client.explain(MODEL, document).explanation for document in DOCUMENTS]
    for explanation, other in zip(explanations, expected, strict=True):
        assert other is not None
        assert explanation["tokens"] == list(other.tokens)
        assert explanation["unknown"] == list(other.unknown)
        (part,) = explanation["labels"]
        assert part["label"] == other.labels[0].label
        assert part["contributions"] == pytest.approx(other.labels[0].contributions)
        assert part["bias"] + math.fsum(part["contributions"]) == pytest.approx(part["logit"], abs=1e-5)


def test_a_request_may_have_the_parameters_of_triton(triton: ForeignClient) -> None:
    answer = triton.ask(
        "infer", model_name=MODEL, inputs=[tensor(DOCUMENTS[:1])], outputs=[{"name": "label"}],
        sequence_id=7, sequence_start=True, priority=1, timeout=20_000_000, parameters={"mine": 1},
    )  # fmt: skip
    assert answer["outputs"] == {"label": ["timer"]}


ERRORS: dict[str, tuple[str, dict[str, Any]]] = {
    "an unknown model": ("NOT_FOUND", {"model_name": "unknown"}),
    "a name that is a path": ("NOT_FOUND", {"model_name": "../models"}),
    "an unknown version": ("NOT_FOUND", {"model_version": "2"}),
    "a model without an engine": ("FAILED_PRECONDITION", {"model_name": "foreign"}),
    "another input": ("INVALID_ARGUMENT", {"inputs": [tensor(["x"], name="text")]}),
    "two inputs": ("INVALID_ARGUMENT", {"inputs": [tensor(["x"]), tensor(["x"])]}),
    "no input": ("INVALID_ARGUMENT", {"inputs": []}),
    "numbers": ("INVALID_ARGUMENT", {"inputs": [tensor(["1"], datatype="FP32", numpy="float32")]}),
    "two columns": ("INVALID_ARGUMENT", {"inputs": [tensor(["x"] * 4, shape=[2, 2])]}),
    "no documents": ("INVALID_ARGUMENT", {"inputs": [tensor([])]}),
    "too many documents": ("INVALID_ARGUMENT", {"inputs": [tensor(["x"] * (MOST_DOCUMENTS + 1))]}),
    "a long document": ("INVALID_ARGUMENT", {"inputs": [tensor(["x", "x" * (1 << 17)])]}),
    "a message over the limit": ("RESOURCE_EXHAUSTED", {"inputs": [tensor(["x" * (1 << 20)])]}),
    "an unknown output": ("INVALID_ARGUMENT", {"outputs": [{"name": "logits"}]}),
    "a timeout that has passed": ("DEADLINE_EXCEEDED", {"timeout": 1}),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_wrong_has_the_code_of_the_protocol(triton: ForeignClient, name: str) -> None:
    code, order = ERRORS[name]
    found, text = triton.refusal("infer", **{"model_name": MODEL, "inputs": [tensor(["x"])]} | order)

    assert found == code
    assert text
    assert "/" not in text
    assert triton.ask("infer", model_name=MODEL, inputs=[tensor(DOCUMENTS[:1])])["outputs"]["label"] == ["timer"]


RAW = encoded(pack_bytes([b"x"]))
TYPED_INPUT = message("x")["inputs"][0]
RAW_INPUT = {"name": "document", "datatype": "BYTES", "shape": [1]}

DAMAGED: dict[str, dict[str, Any]] = {
    "raw and typed at once": message("x", raw_input_contents=[RAW]),
    "two raw entries": message(inputs=[RAW_INPUT], raw_input_contents=[RAW, RAW]),
    "a length beyond the end": message(inputs=[RAW_INPUT], raw_input_contents=[encoded(b"\5\0\0\0x")]),
    "a length cut off": message(inputs=[RAW_INPUT], raw_input_contents=[encoded(pack_bytes([b"x"]) + b"\1")]),
    "one element too many": message(inputs=[RAW_INPUT], raw_input_contents=[encoded(pack_bytes([b"x", b"y"]))]),
    "one element too few": message(inputs=[TYPED_INPUT | {"shape": [2]}]),
    "no UTF-8": message(inputs=[RAW_INPUT], raw_input_contents=[encoded(pack_bytes([b"\xff"]))]),
    "an open size": message(inputs=[TYPED_INPUT | {"shape": [-1]}]),
    "contents of another type": message(inputs=[TYPED_INPUT | {"contents": {"int_contents": [1]}}]),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_tensor_that_is_not_as_the_protocol_says_is_an_invalid_argument(triton: ForeignClient, name: str) -> None:
    code, text = triton.refusal("message", request=DAMAGED[name])

    assert code == "INVALID_ARGUMENT"
    assert text


def test_what_was_asked_is_counted(triton: ForeignClient) -> None:
    def counted() -> dict[str, Any]:
        stats = triton.ask("get_inference_statistics", model_name="banking77", as_json=True)["model_stats"][0]
        assert isinstance(stats, dict)
        return stats

    def number(stats: dict[str, Any], *names: str) -> int:
        for name in names[:-1]:
            stats = stats.get(name, {})
        return int(stats.get(names[-1], 0))

    before = counted()
    triton.ask("infer", model_name="banking77", inputs=[tensor(["my card was swallowed"] * 3)])
    triton.refusal("infer", model_name="banking77", inputs=[tensor(["x"], name="text")])
    after = counted()

    grown = {
        names: number(after, *names) - number(before, *names)
        for names in [
            ("inference_count",),
            ("execution_count",),
            ("inference_stats", "success", "count"),
            ("inference_stats", "fail", "count"),
        ]
    }
    assert list(grown.values()) == [3, 1, 1, 1]
    assert number(after, "inference_stats", "success", "ns") > number(before, "inference_stats", "success", "ns")
    assert "banking77" in [
        model["name"] for model in triton.ask("get_inference_statistics", as_json=True)["model_stats"]
    ]


def test_the_index_tells_the_models_of_the_volume(triton: ForeignClient) -> None:
    models = {model["name"]: model for model in triton.ask("get_model_repository_index", as_json=True)["models"]}

    assert {MODEL, "banking77", "foreign"} <= set(models)
    assert models[MODEL] == {"name": MODEL, "version": "1.0", "state": "READY"}
    assert (models["foreign"]["state"], "no engine" in models["foreign"]["reason"]) == ("UNAVAILABLE", True)


def test_models_are_loaded_and_unloaded_in_the_predictor(triton: ForeignClient, running: Stack) -> None:
    name = "clinc150-travel"
    triton.ask("load_model", model_name=name)
    assert name in resident(running)
    triton.ask("unload_model", model_name=name)
    assert name not in resident(running)
    # The next query loads the model again.
    triton.ask("infer", model_name=name, inputs=[tensor(["book a flight"])])
    assert name in resident(running)


@pytest.mark.parametrize(("name", "code"), [("unknown", "NOT_FOUND"), ("foreign", "FAILED_PRECONDITION")])
def test_what_cannot_be_asked_cannot_be_loaded(triton: ForeignClient, name: str, code: str) -> None:
    for do in ("load_model", "unload_model", "get_model_metadata", "get_model_config", "get_inference_statistics"):
        # A model without an engine can still be described.
        if do.startswith("get_") and name == "foreign":
            assert triton.ask(do, model_name=name, as_json=True)
        else:
            assert triton.refusal(do, model_name=name)[0] == code


def test_a_configuration_of_the_callers_own_is_refused(triton: ForeignClient) -> None:
    code, text = triton.refusal("load_model", model_name=MODEL, config="{}")

    assert (code, "published" in text) == ("INVALID_ARGUMENT", True)


def test_500_rows_have_the_labels_that_predict_gives_them(
    triton: ForeignClient, ours: Callable[..., list[Prediction]], figure: Callable[[str], None]
) -> None:
    data = json.loads(shared("datasets/clinc150/data_full.json").read_text())["test"][:500]
    rows = [text for text, _ in data]
    labels: list[str] = []
    for first in range(0, len(rows), MOST_DOCUMENTS):
        documents = rows[first : first + MOST_DOCUMENTS]
        answer = triton.ask("infer", model_name=MODEL, inputs=[tensor(documents)], outputs=[{"name": "label"}])
        assert answer["outputs"]["label"] == [prediction.label for prediction in ours(documents)]
        labels += answer["outputs"]["label"]

    right = sum(label == expected for label, (_, expected) in zip(labels, data, strict=True))
    figure(f"through Triton's client: {right} of {len(rows)} CLINC150 rows right")
    assert right > 400


def resident(running: Stack) -> list[str]:
    return [model.id for model in ask_residency(running.predictor.address).models]


# KServe's client


def test_kserves_client_asks_after_the_server_and_its_models(kserve: ForeignClient) -> None:
    assert kserve.ask("call", method="is_server_live") is True
    assert kserve.ask("call", method="is_server_ready") is True
    assert kserve.ask("call", method="is_model_ready", model_name=MODEL) is True
    assert kserve.ask("call", method="is_model_ready", model_name="unknown") is False


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("shape", [[4], [4, 1]], ids=str)
def test_kserves_client_gets_what_predict_answers(
    kserve: ForeignClient, ours: Callable[..., list[Prediction]], raw: bool, shape: list[int]
) -> None:
    answer = kserve.ask("infer", model=MODEL, documents=DOCUMENTS, shape=shape, raw=raw, id="9")

    expected = ours(DOCUMENTS)
    assert (answer["model"], answer["version"], answer["id"]) == (MODEL, "1.0", "9")
    assert answer["outputs"]["label"] == [prediction.label for prediction in expected]
    assert answer["outputs"]["score"] == pytest.approx([prediction.score for prediction in expected])
    assert answer["shapes"] == {"label": shape, "score": shape}


def test_kserves_client_gets_classes(kserve: ForeignClient, ours: Callable[..., list[Prediction]]) -> None:
    outputs = [{"name": "score", "parameters": {"classification": 2}}]
    answer = kserve.ask("infer", model=MODEL, documents=DOCUMENTS[:1], shape=[1], raw=False, outputs=outputs)

    best = ours(DOCUMENTS[:1], 2)[0].best
    assert [text.split(":")[2] for text in answer["outputs"]["score"]] == [scored.label for scored in best]


def test_kserves_client_writes_a_threshold_as_text(
    kserve: ForeignClient, ours: Callable[..., list[Prediction]]
) -> None:
    outputs = [{"name": name} for name in ("label", "score", "best_label", "best_score")]
    order = {"model": MODEL, "documents": DOCUMENTS, "shape": [4], "raw": False, "outputs": outputs}
    answer = kserve.ask("infer", parameters={"threshold": str(THRESHOLD)}, **order)["outputs"]

    assert_fell_back(answer, ours(DOCUMENTS, threshold=THRESHOLD))


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_kserves_client_is_told_what_is_wrong(kserve: ForeignClient, raw: bool) -> None:
    order: dict[str, Any] = {"model": MODEL, "documents": ["x"], "shape": [1], "raw": raw}
    for change, code in (
        ({"model": "unknown"}, "NOT_FOUND"),
        ({"model": "foreign"}, "FAILED_PRECONDITION"),
        ({"documents": ["x"] * 65, "shape": [65]}, "INVALID_ARGUMENT"),
        ({"shape": [1, 1, 1]}, "INVALID_ARGUMENT"),
        ({"outputs": [{"name": "logits"}]}, "INVALID_ARGUMENT"),
    ):
        assert kserve.refusal("infer", **order | change)[0] == code


def test_kserve_loads_and_unloads_with_messages_of_its_own(kserve: ForeignClient, running: Stack) -> None:
    name = "clinc150-kitchen"
    fields = {"model_name": name}
    assert kserve.ask("stub", method="RepositoryModelLoad", fields=fields) == {"model_name": name, "isLoaded": True}
    assert name in resident(running)
    assert kserve.ask("stub", method="RepositoryModelUnload", fields=fields) == {"model_name": name, "isUnloaded": True}
    assert name not in resident(running)


# A server that is not ready


def test_a_frontend_is_ready_once_an_engine_is_and_unavailable_once_it_is_gone(tmp_path: Path) -> None:
    port = free_port()
    routes = f"intent-classification=predictor://127.0.0.1:{port}"
    started: list[Service] = []
    try:
        frontend = start("frontend", ROOT / "models", tmp_path, "--routes", routes)
        started.append(frontend)
        frontend.wait_until_logged("listening")
        with foreign_client("triton_clients", "triton_grpc.py", "sync", frontend.address) as client:
            assert client.ask("is_server_live") is True
            assert client.ask("is_server_ready") is False

            predictor = start("predictor", ROOT / "models", tmp_path, port=port)
            started.append(predictor)
            frontend.wait_until_serving()
            assert client.ask("is_server_ready") is True
            assert client.ask("infer", model_name=MODEL, inputs=[tensor(DOCUMENTS[:1])])["outputs"]["label"] == [
                "timer"
            ]

            predictor.kill()
            code, text = client.refusal("infer", model_name=MODEL, inputs=[tensor(["x"])], client_timeout=5)
            assert code == "UNAVAILABLE"
            assert "127.0.0.1" not in text
    finally:
        for service in reversed(started):
            service.kill()


# Triton's load generator


def test_perf_analyzer_finds_all_it_asks_for(running: Stack, tmp_path: Path, figure: Callable[[str], None]) -> None:
    try:
        analyzer = perf_analyzer()
    except CannotInstall as error:
        pytest.skip(str(error))
    data = tmp_path / "documents.json"
    data.write_text(json.dumps({"data": [{"document": {"content": [text], "shape": [1]}} for text in DOCUMENTS[:2]]}))
    report = tmp_path / "report.csv"
    command = [
        str(analyzer.program), "-m", MODEL, "-u", running.frontend.address, "-i", "grpc", "-b", "4",
        "--input-data", str(data), "--concurrency-range", "2", "--measurement-mode", "count_windows",
        "--measurement-request-count", "200", "--stability-percentage", "900", "-f", str(report),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env={**os.environ, **analyzer.settings}
    )

    assert report.exists(), done.stdout + done.stderr
    columns, row = (line.split(",") for line in report.read_text().splitlines()[:2])
    measured = dict(zip(columns, row, strict=False))
    figure(f"perf_analyzer, 2 callers with batches of 4: {float(measured['Inferences/Second']):.0f} documents a second")
    assert float(measured["Inferences/Second"]) > 0
    # perf_analyzer queries the statistics before and after the load.
    assert float(measured["Server Compute Infer"]) > 0
