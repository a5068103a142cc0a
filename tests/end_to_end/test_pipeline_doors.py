"""Pipelines behind every door of real services: asked, described, released and refused as any other model is."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from grpc import StatusCode

from intent_serving_client.channels import ChannelOptions
from serving.client import IntentClient, ManagementClient, Outcome, Prediction, Query
from serving.domain.errors import ModelNotFound, OutOfCapacity, PermissionDenied, ServingError
from serving.domain.management import Role
from serving.domain.model_id import parse_model_id
from serving.domain.prediction import Onward
from serving.domain.releases.release import Release
from serving.stubs import open_inference_pb2 as pb
from serving.stubs import open_inference_pb2_grpc as pb_grpc
from serving.volume.publishing import publish as publish_model
from serving.wire.raw_tensors import pack_bytes
from serving.wire.residency_client import ask_residency
from tests.access import a_key, identity_of, write_access
from tests.builders import PATIENCE, free_port, publish
from tests.conftest import ROOT
from tests.end_to_end.access.callers import Metadata
from tests.end_to_end.access.calls import rest
from tests.end_to_end.processes import Service, Stack, running_service, stack
from tests.end_to_end.test_explanations import BATCH, EXPLAIN, PREDICT, answer, call
from tests.end_to_end.test_model_service import asked, command, grpcurl_of
from tests.end_to_end.test_releases import metric
from tests.end_to_end.test_uploads import eventually
from tests.samples import copy_samples

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BANKING: Final = ROOT / "models" / "clinc150-banking"
TRAVEL: Final = ROOT / "models" / "clinc150-travel"
BALANCE: Final = "what is my balance"
TIMER: Final = "make a 10 minute timer"
STRAY: Final = "qqq zzz"
ROLES: Final[tuple[Role, ...]] = ("stable", "canary", "shadow")
BY_DOMAIN: Final = "clinc150-by-domain"
IN_SCOPE: Final = "banking77-in-scope"
PIPELINES: Final[Mapping[str, Mapping[str, Any]]] = {
    "over-name": {"ask": "bot"},
    "over-stable": {"ask": "bot@stable"},
    "over-version": {"ask": "bot@2"},
    "voting": {"ask": ["clinc150", "clinc150-banking"], "vote": "mean"},
    "nested": {"ask": BY_DOMAIN},
    "broken": {"ask": "gone"},
    "patient": {"ask": "gone", "otherwise": "clinc150-banking"},
}
"""Pipelines of one step each, by their ids."""


@dataclass(frozen=True)
class Doors:
    """Services with pipelines, and the port of the frontend's metrics."""

    both: Stack
    metrics_port: int

    @property
    def frontend(self) -> Service:
        return self.both.frontend

    @property
    def address(self) -> str:
        return self.both.frontend.address

    def held(self) -> set[str]:
        """Return the models in the predictor's memory."""
        return {model.id for model in ask_residency(self.both.predictor.address).models}

    def metric(self, name: str, **labels: str) -> float:
        """Return the value of a series of the frontend; 0 if it is missing."""
        inner = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        return metric(self.metrics_port, f"{name}{{{inner}}}")


def write_pipeline(volume: Path, model_id: str, step: Mapping[str, Any], **keys: Any) -> None:
    """Write a pipeline of one step, which a version has in a folder of its own."""
    manifest = {"ModelVersion": "1.0", "Start": "first", "Steps": {"first": step}} | keys
    publish(volume, model_id.replace("@", "/"), files={}, Algorithm="pipeline", classes={}, **manifest)


def write_volume(volume: Path) -> Path:
    """Write the samples, a name with two versions, and pipelines over them."""
    copy_samples(volume)
    for name in (BY_DOMAIN, IN_SCOPE):
        shutil.copytree(ROOT / "models" / name, volume / name)
    publish_model(BANKING, volume, parse_model_id("bot@1"))
    publish_model(TRAVEL, volume, parse_model_id("bot@2"))
    (volume / "bot" / "release.json").write_text(Release(revision=1, stable="1").to_json())
    for name, step in PIPELINES.items():
        write_pipeline(volume, name, step)
    return volume


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A frontend and a predictor over the samples and pipelines; tests add models with names of their own."""
    folder = tmp_path_factory.mktemp("doors")
    port = free_port()
    flags = ("--metrics-port", str(port))
    with stack(write_volume(folder / "models"), folder, frontend=flags, transport="http2") as both:
        yield Doors(both, port)


@pytest.fixture
def client(doors: Doors) -> Iterator[IntentClient]:
    with IntentClient(doors.address, timeout=PATIENCE) as connected:
        yield connected


@pytest.fixture
def manager(doors: Doors) -> Iterator[ManagementClient]:
    with ManagementClient(doors.address, timeout=PATIENCE) as connected:
        yield connected


def without_path(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an answer without what tells which model gave it."""
    return {key: value for key, value in told.items() if key not in ("path", "model")}


def steps_of(path: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(step["name"], step["onward"]) for step in path]


def models_of(prediction: Prediction) -> list[str]:
    """Return the models of all steps that answered."""
    return [model.model_id for step in prediction.path for model in step.models]


def answered(outcome: Outcome) -> Prediction:
    assert isinstance(outcome, Prediction), outcome
    return outcome


# PredictionService


def test_grpcurl_gets_the_answer_of_the_model_at_the_end_of_the_way_and_the_way(doors: Doors) -> None:
    told = answer(doors.address, PREDICT, runId=BY_DOMAIN, document=BALANCE, k=2)
    by_hand = answer(doors.address, PREDICT, runId="clinc150-banking", document=BALANCE, k=2)

    assert without_path(told) == without_path(by_hand)
    assert "path" not in by_hand
    assert told["model"] == {"id": BY_DOMAIN, "version": "1.0"}
    first, last = told["path"]
    assert first.pop("milliseconds") > 0
    assert last.pop("milliseconds") > 0
    assert 0 < first.pop("score") <= 1
    assert first == {
        "name": "domain",
        "models": [{"id": "clinc150", "version": "1.0"}],
        "label": "balance",
        "onward": "ROUTED",
        "next": "clinc150-banking",
    }
    assert last == {
        "name": "clinc150-banking",
        "models": [{"id": "clinc150-banking", "version": "1.0"}],
        "label": "balance",
        "score": told["score"],
        "onward": "ANSWERED",
    }


@pytest.mark.parametrize(("document", "onward"), [(TIMER, "NO_ROUTE"), (STRAY, "FELL_BACK")])
def test_grpcurl_sees_why_a_document_went_otherwise(doors: Doors, document: str, onward: str) -> None:
    told = answer(doors.address, PREDICT, runId=BY_DOMAIN, document=document)
    by_hand = answer(doors.address, PREDICT, runId="clinc150", document=document)
    assert without_path(told) == without_path(by_hand)
    assert steps_of(told["path"]) == [("domain", onward), ("clinc150", "ANSWERED")]


def test_a_batch_mixes_pipelines_with_models_and_with_what_is_missing(doors: Doors) -> None:
    ids = [BY_DOMAIN, "clinc150-banking", "unknown", IN_SCOPE, "broken", "nested", "patient", "voting", "../x"]
    requests = [{"runId": model_id, "document": BALANCE} for model_id in ids]
    results = dict(zip(ids, answer(doors.address, BATCH, requests=requests)["results"], strict=True))

    ways = {
        name: steps_of(result["response"]["path"])
        for name, result in results.items()
        if "path" in result.get("response", {})
    }
    assert ways == {
        BY_DOMAIN: [("domain", "ROUTED"), ("clinc150-banking", "ANSWERED")],
        IN_SCOPE: [("gate", "ROUTED"), ("banking77", "ANSWERED")],
        "nested": [("first", "ANSWERED")],
        "patient": [("first", "FAILED"), ("clinc150-banking", "ANSWERED")],
        "voting": [("first", "ANSWERED")],
    }
    assert results["clinc150-banking"]["response"]["label"] == "balance"
    (outer,) = results["nested"]["response"]["path"]
    assert steps_of(outer["path"]) == ways[BY_DOMAIN]
    assert results["patient"]["response"]["path"][0]["code"] == StatusCode.NOT_FOUND.value[0]
    (vote,) = results["voting"]["response"]["path"]
    assert [model["id"] for model in vote["models"]] == ["clinc150", "clinc150-banking"]
    statuses = {name: result["status"] for name, result in results.items() if "status" in result}
    assert {name: status["code"] for name, status in statuses.items()} == {"unknown": 5, "broken": 9, "../x": 3}
    assert 'step "first" of broken: no model has the runId gone' in statuses["broken"]["message"]


def test_a_large_batch_for_a_pipeline_is_answered_as_asking_by_hand_is(client: IntentClient) -> None:
    documents = [f"{text} {number}" for number in range(50) for text in (BALANCE, TIMER, STRAY)]
    given = [answered(each) for each in client.predict_batch([Query(BY_DOMAIN, text) for text in documents])]
    last = [each.path[-1].name for each in given]
    assert {"clinc150", "clinc150-banking"} <= set(last)
    by_hand = client.predict_batch([Query(name, text) for name, text in zip(last, documents, strict=True)])
    assert [each.label for each in given] == [answered(each).label for each in by_hand]


@pytest.mark.parametrize(
    ("model_id", "document", "answering"),
    [
        (BY_DOMAIN, BALANCE, "clinc150-banking"),
        (BY_DOMAIN, TIMER, "clinc150"),
        (IN_SCOPE, BALANCE, "banking77"),
        ("nested", BALANCE, "clinc150-banking"),
        ("over-name", BALANCE, "bot@1"),
    ],
)
def test_an_explanation_is_that_of_the_step_that_answered(
    doors: Doors, model_id: str, document: str, answering: str
) -> None:
    told = answer(doors.address, EXPLAIN, runId=model_id, document=document)
    by_hand = answer(doors.address, EXPLAIN, runId=answering, document=document)
    predicted = answer(doors.address, PREDICT, runId=model_id, document=document, explain=True)
    assert told["explanation"] == by_hand["explanation"] == predicted["explanation"]
    assert without_path(told) == without_path(by_hand)
    assert told["model"]["id"] == model_id
    assert told["path"][-1]["onward"] == "ANSWERED"


def test_labels_to_explain_are_for_the_step_that_answers(doors: Doors) -> None:
    request = {"runId": BY_DOMAIN, "document": BALANCE}
    told = answer(doors.address, EXPLAIN, **request, labels=["transfer"])
    assert [part["label"] for part in told["explanation"]["labels"]] == ["balance", "transfer"]
    # The model of the first step has this label; the one that answers has not.
    refused = call(doors.address, EXPLAIN, {**request, "labels": ["timer"]})
    assert "Code: InvalidArgument" in refused.stderr
    assert 'step "clinc150-banking" of clinc150-by-domain' in refused.stderr


def test_the_threshold_of_a_caller_holds_for_the_answer(doors: Doors) -> None:
    told = answer(doors.address, PREDICT, runId=BY_DOMAIN, document=BALANCE, threshold=1, k=1)
    assert told["label"] == "oos"
    assert told["fallback"]["best_label"] == "balance"
    assert steps_of(told["path"]) == [("domain", "ROUTED"), ("clinc150-banking", "ANSWERED")]


def test_a_document_that_is_too_large_is_refused_before_any_step(doors: Doors) -> None:
    before = doors.metric("intent_pipeline_step_documents_total", model="over-version", onward="answered", step="first")
    refused = call(doors.address, PREDICT, {"runId": "over-version", "document": "a " * 60_000})
    assert "Code: InvalidArgument" in refused.stderr
    assert "step" not in refused.stderr
    after = doors.metric("intent_pipeline_step_documents_total", model="over-version", onward="answered", step="first")
    assert after == before


# Open Inference


@contextmanager
def protocol(doors: Doors) -> Iterator[Any]:
    with grpc.insecure_channel(doors.address) as channel:
        yield pb_grpc.GRPCInferenceServiceStub(channel)


def infer_request(model: str, *documents: str, outputs: Sequence[str] = (), version: str = "") -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="document", datatype="BYTES", shape=[len(documents), 1])
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs]
    raw = [pack_bytes([text.encode() for text in documents])]
    return pb.ModelInferRequest(
        model_name=model, model_version=version, inputs=[tensor], outputs=wanted, raw_input_contents=raw
    )


def inferred(stub: Any, model: str, *documents: str, outputs: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the outputs of the documents that are text, by name."""
    told = stub.ModelInfer(infer_request(model, *documents, outputs=outputs), timeout=PATIENCE)
    assert (told.model_name, told.model_version) == (model, "1.0")
    return {
        output.name: unpacked(raw)
        for output, raw in zip(told.outputs, told.raw_output_contents, strict=True)
        if output.datatype == "BYTES"
    }


def unpacked(raw: bytes) -> list[str]:
    """Return the elements of a tensor, each of which follows its length."""
    elements: list[str] = []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        elements.append(raw[4:end].decode())
        raw = raw[end:]
    return elements


def test_open_inference_gives_the_path_on_request(doors: Doors) -> None:
    with protocol(doors) as stub:
        told = inferred(stub, BY_DOMAIN, BALANCE, TIMER, outputs=["label", "score", "path"])
        plain = inferred(stub, BY_DOMAIN, BALANCE, TIMER)
        of_a_model = inferred(stub, "clinc150-banking", BALANCE, outputs=["path"])
    assert told["label"] == plain["label"] == ["balance", "timer"]
    assert plain.keys() == {"label"}
    assert of_a_model == {"path": ["[]"]}
    ways = [[(step["name"], step["onward"]) for step in json.loads(path)] for path in told["path"]]
    assert ways == [
        [("domain", "ROUTED"), ("clinc150-banking", "ANSWERED")],
        [("domain", "NO_ROUTE"), ("clinc150", "ANSWERED")],
    ]
    assert json.loads(told["path"][0])[0]["models"] == [{"id": "clinc150", "version": "1.0"}]


def test_open_inference_explains_the_step_that_answered(doors: Doors) -> None:
    with protocol(doors) as stub:
        told = inferred(stub, BY_DOMAIN, BALANCE, outputs=["explanation", "path"])
        by_hand = inferred(stub, "clinc150-banking", BALANCE, outputs=["explanation"])
    assert json.loads(told["explanation"][0]) == json.loads(by_hand["explanation"][0])


def test_open_inference_describes_a_pipeline_as_any_model(doors: Doors) -> None:
    with protocol(doors) as stub:
        metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name=BY_DOMAIN), timeout=PATIENCE)
        of_a_model = stub.ModelMetadata(pb.ModelMetadataRequest(name="clinc150"), timeout=PATIENCE)
        config = stub.ModelConfig(pb.ModelConfigRequest(name=BY_DOMAIN), timeout=PATIENCE).config
        ready = {
            name: stub.ModelReady(pb.ModelReadyRequest(name=name), timeout=PATIENCE).ready
            for name in (BY_DOMAIN, "over-name", "unknown")
        }
        index = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=PATIENCE).models
    assert (metadata.name, list(metadata.versions)) == (BY_DOMAIN, ["1.0"])
    assert (metadata.inputs, metadata.outputs) == (of_a_model.inputs, of_a_model.outputs)
    assert config.name == BY_DOMAIN
    assert ready == {BY_DOMAIN: True, "over-name": True, "unknown": False}
    states = {model.name: (model.state, model.reason) for model in index}
    assert {name: states[name] for name in (BY_DOMAIN, *PIPELINES)} == dict.fromkeys(
        (BY_DOMAIN, *PIPELINES), ("READY", "")
    )


def test_open_inference_counts_and_refuses_as_for_any_model(doors: Doors) -> None:
    def statistics(stub: Any) -> Any:
        return stub.ModelStatistics(pb.ModelStatisticsRequest(name=IN_SCOPE), timeout=PATIENCE).model_stats[0]

    with protocol(doors) as stub:
        before = statistics(stub).inference_count
        inferred(stub, IN_SCOPE, BALANCE, TIMER, STRAY)
        assert statistics(stub).inference_count == before + 3
        for model, version, code, words in (
            ("broken", "", StatusCode.FAILED_PRECONDITION, 'step "first" of broken'),
            (BY_DOMAIN, "2.0", StatusCode.NOT_FOUND, "no such version"),
            ("unknown", "", StatusCode.NOT_FOUND, "no model has this name"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                stub.ModelInfer(infer_request(model, BALANCE, version=version), timeout=PATIENCE)
            failed: Any = caught.value
            assert failed.code() is code
            assert words in failed.details()


BODY: Final = {"name": "document", "datatype": "BYTES", "shape": [1], "data": [BALANCE]}


def test_rest_gives_the_answer_the_path_and_the_metadata(doors: Doors) -> None:
    def asked_of(model: str, *outputs: str) -> dict[str, list[Any]]:
        tensor = {"name": "document", "datatype": "BYTES", "shape": [2], "data": [BALANCE, TIMER]}
        body = {"inputs": [tensor], "outputs": [{"name": name} for name in outputs]}
        told = rest(doors.address, "POST", f"/v2/models/{model}/infer", body=json.dumps(body).encode())
        assert told.status == 200, told.body
        return {output["name"]: output["data"] for output in json.loads(told.body)["outputs"]}

    told = asked_of(BY_DOMAIN, "label", "score", "path")
    assert told["label"] == ["balance", "timer"]
    ways = [[(step["name"], step["onward"]) for step in json.loads(path)] for path in told["path"]]
    assert ways[0] == [("domain", "ROUTED"), ("clinc150-banking", "ANSWERED")]
    plain = asked_of(f"{BY_DOMAIN}/versions/1.0")
    assert plain == {"label": told["label"], "score": pytest.approx(told["score"], abs=1e-6)}

    metadata = rest(doors.address, "GET", f"/v2/models/{BY_DOMAIN}")
    assert metadata.status == 200
    assert {key: json.loads(metadata.body)[key] for key in ("name", "versions")} == {
        "name": BY_DOMAIN,
        "versions": ["1.0"],
    }
    assert rest(doors.address, "GET", f"/v2/models/{BY_DOMAIN}/ready").status == 200
    refused = rest(doors.address, "POST", "/v2/models/broken/infer", body=json.dumps({"inputs": [BODY]}).encode())
    assert refused.status in (400, 409, 412, 422), refused
    assert 'step "first" of broken' in json.loads(refused.body)["error"]


# ModelService


def test_pipelines_are_listed_and_described(doors: Doors) -> None:
    write_pipeline(doors.both.models, "unreadable", {"ask": "clinc150", "otherwise": "first"})
    listed = {model["name"]: model for model in asked(doors.frontend, "ListModels", algorithm="pipeline")["models"]}
    assert {BY_DOMAIN, IN_SCOPE, *PIPELINES} <= listed.keys()
    assert listed[BY_DOMAIN].keys() == {"name", "algorithm", "model_version", "bytes"}
    everything = {model["name"]: model for model in asked(doors.frontend, "ListModels")["models"]}
    assert 'step "first" leads to itself' in everything["unreadable"]["problem"]

    described = asked(doors.frontend, "DescribeModel", runId=BY_DOMAIN)
    assert described["summary"] == listed[BY_DOMAIN]
    assert json.loads(described["manifest"])["Start"] == "domain"
    assert "residences" not in described
    refused = call(doors.address, PREDICT, {"runId": "unreadable", "document": BALANCE})
    assert "Code: FailedPrecondition" in refused.stderr
    assert 'step "first" leads to itself' in refused.stderr


def test_loading_loads_the_models_of_every_step_and_unloading_leaves_them(
    doors: Doors, manager: ManagementClient
) -> None:
    models = {"clinc150", "clinc150-banking", "clinc150-travel", "clinc150-kitchen"}
    for model in sorted(models | {"bot@1"}):
        manager.unload(model)
    assert not doors.held() & models
    loaded = manager.load(BY_DOMAIN)
    assert loaded is not None
    assert loaded.resident
    assert models <= doors.held()
    manager.unload(BY_DOMAIN)
    assert models <= doors.held()
    with protocol(doors) as stub:
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="over-name"), timeout=PATIENCE)
        assert "bot@1" in doors.held()
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="over-name"), timeout=PATIENCE)
    assert "bot@1" in doors.held()
    refused = grpcurl_of(doors.frontend, "LoadModel", runId="broken")
    assert "Code: FailedPrecondition" in refused.stderr
    assert 'step "first" asks gone: no model has the runId gone' in refused.stderr


def test_a_deleted_pipeline_is_gone_and_its_models_answer_on(
    doors: Doors, client: IntentClient, manager: ManagementClient
) -> None:
    write_pipeline(doors.both.models, "short-lived", PIPELINES["voting"])
    eventually(lambda: answers(client, "short-lived"))
    manager.delete("short-lived", force=True)
    assert not (doors.both.models / "short-lived").exists()
    with pytest.raises(ModelNotFound):
        manager.describe("short-lived")
    eventually(lambda: not answers(client, "short-lived"))
    assert {"clinc150", "clinc150-banking"} <= doors.held()
    for model in ("clinc150", "clinc150-banking", "voting"):
        assert answered(client.predict(model, BALANCE)).label == "balance"


def test_a_pipeline_whose_model_is_deleted_says_so(
    doors: Doors, client: IntentClient, manager: ManagementClient
) -> None:
    publish_model(BANKING, doors.both.models, parse_model_id("mortal"))
    write_pipeline(doors.both.models, "bereaved", {"ask": "mortal"})
    eventually(lambda: answers(client, "bereaved"))
    manager.delete("mortal", force=True)
    eventually(lambda: not answers(client, "bereaved"))
    with pytest.raises(ServingError, match='step "first" of bereaved: no model has the runId mortal') as caught:
        client.predict("bereaved", BALANCE)
    assert caught.value.code is StatusCode.FAILED_PRECONDITION


def answers(client: IntentClient, model_id: str) -> bool:
    try:
        client.predict(model_id, BALANCE)
    except ServingError:
        return False
    return True


def test_a_replaced_definition_is_followed(doors: Doors, client: IntentClient) -> None:
    write_pipeline(doors.both.models, "changing", {"ask": "clinc150-banking"})
    eventually(lambda: answers(client, "changing"))
    assert models_of(client.predict("changing", BALANCE)) == ["clinc150-banking"]
    write_pipeline(doors.both.models, "changing", {"ask": "clinc150"}, ModelVersion="2.0")
    eventually(lambda: client.predict("changing", BALANCE).model_version == "2.0")
    assert models_of(client.predict("changing", BALANCE)) == ["clinc150"]


# Releases


def test_versions_of_a_pipeline_are_published_released_tried_and_rolled_back(
    doors: Doors, client: IntentClient, manager: ManagementClient, tmp_path: Path
) -> None:
    for version, step in (("1", {"ask": "clinc150-banking"}), ("2", {"ask": BY_DOMAIN})):
        write_pipeline(tmp_path, f"draft-{version}", step, ModelVersion=version)
        published = intentctl_publish(tmp_path / f"draft-{version}", f"tried@{version}", doors.both.models)
        assert published.returncode == 0, published.stderr
    assert [model.versions for model in manager.models(prefix="tried")] == [("1", "2")]
    manager.release("tried", "1")
    assert client.predict("tried", BALANCE).model_id == "tried@1"
    assert client.predict("tried@2", BALANCE).model_id == "tried@2"

    manager.release("tried", "2", role="canary", share=0.5)
    queries = [Query("tried", BALANCE, key=str(number)) for number in range(60)]
    first, again = ([answered(each) for each in client.predict_batch(queries)] for _ in range(2))
    assert {each.model_id for each in first} == {"tried@1", "tried@2"}
    assert [each.model_id for each in first] == [each.model_id for each in again]
    for each in first:
        own = {"tried@1": ["clinc150-banking"], "tried@2": [BY_DOMAIN]}
        assert models_of(each) == own[each.model_id]
    assert manager.promote("tried").release is not None
    assert client.predict("tried", BALANCE).model_id == "tried@2"
    manager.rollback("tried")
    assert client.predict("tried", BALANCE).model_id == "tried@1"
    manager.release("tried", "2", role="label", label="beta")
    assert client.predict("tried@beta", BALANCE).model_id == "tried@2"
    manager.withdraw("tried", role="label", label="beta")
    assert not answers(client, "tried@beta")
    manager.delete("tried@2", force=True)
    eventually(lambda: not answers(client, "tried@2"))
    assert client.predict("tried", BALANCE).model_id == "tried@1"


def intentctl_publish(folder: Path, model_id: str, volume: Path) -> subprocess.CompletedProcess[str]:
    return command("publish", str(folder), model_id, "--model-dir", str(volume))


WITH_ANOTHER_LABEL: Final = {"document": BALANCE, "label": "transfer"}
BAD_VERSIONS: Final[Mapping[str, tuple[Mapping[str, Any], str]]] = {
    "lacking": ({"ask": "gone"}, 'step "first" asks gone: no model has the runId gone'),
    "circling": ({"ask": "around"}, "leads back to the pipeline itself: circling@bad -> around -> circling@bad"),
    "mistaken": ({"ask": "bot@1"}, "to the Example of its manifest, which expects 'transfer'"),
}
"""By name: the step of a version that cannot go live, and the reason."""


@pytest.mark.parametrize("name", BAD_VERSIONS)
def test_a_version_that_cannot_answer_does_not_go_live(
    doors: Doors, client: IntentClient, manager: ManagementClient, name: str
) -> None:
    step, told = BAD_VERSIONS[name]
    write_pipeline(doors.both.models, "around", {"ask": "circling@bad"})
    write_pipeline(doors.both.models, f"{name}@1", {"ask": "clinc150-banking"})
    write_pipeline(doors.both.models, f"{name}@bad", step, Example=WITH_ANOTHER_LABEL)
    before = manager.release(name, "1").release
    for role in ROLES:
        with pytest.raises(ServingError, match=told) as caught:
            manager.release(name, "bad", role=role)
        assert caught.value.code is StatusCode.FAILED_PRECONDITION
    assert manager.release_of(name).release == before
    assert client.predict(name, BALANCE).model_id == f"{name}@1"


def test_a_shadow_of_a_pipeline_is_compared_and_reaches_nobody(doors: Doors, client: IntentClient) -> None:
    write_pipeline(doors.both.models, "watched@1", {"ask": "clinc150-banking"})
    write_pipeline(doors.both.models, "watched@2", {"ask": "clinc150-travel"}, ModelVersion="2.0")
    (doors.both.models / "watched" / "release.json").write_text(Release(revision=1, stable="1").to_json())
    with ManagementClient(doors.address, timeout=PATIENCE) as manager:
        manager.release("watched", "2", role="shadow")
    given = [client.predict("watched", BALANCE) for _ in range(5)]
    given += [answered(each) for each in client.predict_batch([Query("watched", BALANCE)] * 15)]
    assert {(each.label, each.model_id) for each in given} == {("balance", "watched@1")}
    trial = {"model": "watched", "role": "shadow", "version": "2"}
    eventually(lambda: doors.metric("intent_release_compared_total", **trial) >= 20)
    assert doors.metric("intent_release_agreed_total", **trial) == 0
    assert doors.metric("intent_release_answers_total", **trial) == 20
    steps = {"step": "first", "onward": "answered"}
    assert doors.metric("intent_pipeline_step_documents_total", model="watched@2", **steps) >= 20


def test_a_shadow_that_comes_to_lead_back_to_its_name_is_asked_once_and_no_more(
    doors: Doors, client: IntentClient
) -> None:
    for version in ("1", "2"):
        write_pipeline(doors.both.models, f"echo@{version}", {"ask": "clinc150-banking"}, ModelVersion=version)
    (doors.both.models / "echo" / "release.json").write_text(Release(revision=1, stable="1").to_json())
    with ManagementClient(doors.address, timeout=PATIENCE) as manager:
        manager.release("echo", "2", role="shadow")
    write_pipeline(doors.both.models, "echo@2", {"ask": "echo"}, ModelVersion="3")
    eventually(lambda: [step.models[0].model_id for step in client.predict("echo@2", BALANCE).path] == ["echo@1"])

    def asked() -> float:
        return doors.metric("intent_pipeline_step_documents_total", model="echo@2", step="first", onward="answered")

    before, calls = asked(), 5
    for _ in range(calls):
        assert client.predict("echo", BALANCE).label == "balance"
    # The shadow's question to its own name would be compared with the shadow again, and so on without an end.
    eventually(lambda: asked() >= before + calls)
    time.sleep(1.0)
    assert asked() <= before + 2 * calls


def test_a_step_asks_what_the_release_of_its_model_says(
    doors: Doors, client: IntentClient, manager: ManagementClient
) -> None:
    def asked_by(name: str, key: str = "") -> str:
        (model,) = models_of(client.predict(name, BALANCE, key=key))
        return model

    ids = ("over-name", "over-stable", "over-version")
    assert [asked_by(name) for name in ids] == ["bot@1", "bot@1", "bot@2"]
    manager.release("bot", "2", role="canary", share=0.5, max_disagreement=1.0)
    keys = [str(number) for number in range(40)]
    sides = [asked_by("over-name", key) for key in keys]
    assert set(sides) == {"bot@1", "bot@2"}
    # A conversation stays on the side that it has without the pipeline.
    assert sides == [asked_by("over-name", key) for key in keys]
    assert sides == [client.predict("bot", BALANCE, key=key).model_id for key in keys]
    assert {asked_by("over-stable", key) for key in keys} == {"bot@1"}
    manager.promote("bot")
    assert [asked_by(name) for name in ids] == ["bot@2", "bot@2", "bot@2"]
    manager.rollback("bot")
    assert [asked_by(name) for name in ids] == ["bot@1", "bot@1", "bot@2"]


# Metrics


def test_steps_are_counted_by_what_became_of_the_document(doors: Doors, client: IntentClient) -> None:
    steps = {"ask": "clinc150", "route": {"balance": "clinc150-banking"}, "otherwise": "clinc150-travel"}
    write_pipeline(doors.both.models, "counted", steps)
    write_pipeline(doors.both.models, "late", {"ask": "clinc150", "within": 1e-6, "otherwise": "clinc150-banking"})
    for name in ("counted", "late", "patient"):
        eventually(lambda name=name: answers(client, name))  # type: ignore[misc]

    def counts() -> dict[tuple[str, str, str], float]:
        return {
            (model, step, onward): doors.metric(
                "intent_pipeline_step_documents_total", model=model, step=step, onward=onward
            )
            for model, step, onward in (
                ("counted", "first", "routed"),
                ("counted", "first", "no route"),
                ("counted", "first", "fell back"),
                ("counted", "clinc150-banking", "answered"),
                ("counted", "clinc150-travel", "answered"),
                ("patient", "first", "failed"),
                ("late", "first", "late"),
            )
        }

    before = counts()
    seconds = doors.metric("intent_pipeline_step_seconds_count", model="counted", step="first")
    client.predict_batch([Query("counted", text) for text in (BALANCE, BALANCE, TIMER, STRAY)])
    client.predict("patient", BALANCE)
    late = client.predict("late", BALANCE)
    assert late.path[0].onward is Onward.LATE
    grown = {key: value - before[key] for key, value in counts().items()}
    assert grown == {
        ("counted", "first", "routed"): 2,
        ("counted", "first", "no route"): 1,
        ("counted", "first", "fell back"): 1,
        ("counted", "clinc150-banking", "answered"): 2,
        ("counted", "clinc150-travel", "answered"): 2,
        ("patient", "first", "failed"): 1,
        ("late", "first", "late"): 1,
    }
    assert doors.metric("intent_pipeline_step_seconds_count", model="counted", step="first") == seconds + 4
    assert doors.metric("intent_pipeline_step_seconds_sum", model="counted", step="first") > 0


# Access


NARROW, WIDE, EXPLAINER, MANAGER, OPERATOR = "narrow", "wide", "explainer", "manager", "operator"
OWN: Final = ("acme-*",)
REFUSED: Final = 'step "first" of acme-.*: the caller may not use this model'
NOT_TO_GIVE: Final = "the caller may not manage clinc150-banking"
QUOTAS: Final[Mapping[str, Mapping[str, float]]] = {
    "four": {"requests_per_second": 0.001, "burst": 4},
    "one-at-once": {"in_flight": 1},
}


def identities() -> dict[str, Any]:
    """Return the callers: most have the models of acme, which pipelines lead beyond."""
    return {
        NARROW: identity_of(NARROW, "predict", models=OWN),
        EXPLAINER: identity_of(EXPLAINER, "predict", "explain", models=OWN),
        WIDE: identity_of(WIDE, "predict", "explain", models=(*OWN, "clinc150", "clinc150-banking")),
        MANAGER: identity_of(MANAGER, "predict", "manage", models=OWN),
        OPERATOR: identity_of(OPERATOR, "predict", "explain", "manage"),
        **{name: identity_of(name, "predict", limits=limits) for name, limits in QUOTAS.items()},
    }


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Both services with access files; the frontend has the right to all models at the predictor."""
    folder = tmp_path_factory.mktemp("guarded")
    volume = copy_samples(folder / "models")
    routes = {"ask": "clinc150", "route": {"balance": "clinc150-banking", "timer": "clinc150-travel"}}
    write_pipeline(volume, "acme-strict", {**routes, "otherwise": "clinc150"})
    write_pipeline(volume, "acme-open", {**routes, "otherwise": "clinc150"}, Rights="pipeline")
    for role in ROLES:
        for version in ("1", "2"):
            write_pipeline(volume, f"acme-{role}@{version}", {"ask": "clinc150-banking"}, Rights="pipeline")
    write_pipeline(volume, "acme-asking@1", {"ask": "clinc150-banking"})
    key = folder / "frontend.key"
    key.write_text(a_key("frontend") + "\n")
    own = identity_of("frontend", "delegate", "predict", "explain", "manage")
    frontend = ("--access-file", str(write_access(folder / "frontend", identities())))
    credential = ("--predictor-credential-file", str(key))
    predictor = ("--access-file", str(write_access(folder / "predictor", {**identities(), "frontend": own})))
    with stack(volume, folder, frontend=(*frontend, *credential), predictor=predictor, transport="http2") as both:
        yield both


def as_caller(address: str, name: str) -> IntentClient:
    return IntentClient(address, timeout=PATIENCE, options=ChannelOptions(credential=a_key(name)))


def bearing(name: str) -> Metadata:
    return (("authorization", f"Bearer {a_key(name)}"),)


def as_manager(address: str, name: str) -> ManagementClient:
    return ManagementClient(address, timeout=PATIENCE, options=ChannelOptions(credential=a_key(name)))


def test_a_right_to_the_pipeline_alone_is_not_enough_and_the_step_is_named(guarded: Stack) -> None:
    with as_caller(guarded.frontend.address, NARROW) as narrow:
        with pytest.raises(PermissionDenied, match='step "first" of acme-strict: the caller may not use this model'):
            narrow.predict("acme-strict", BALANCE)
        (refused,) = narrow.predict_batch([Query("acme-strict", BALANCE)])
        assert isinstance(refused, PermissionDenied)
    for model, status in (("acme-strict", 403), ("acme-open", 200)):
        body = json.dumps({"inputs": [BODY]}).encode()
        told = rest(guarded.frontend.address, "POST", f"/v2/models/{model}/infer", bearing(NARROW), body)
        assert told.status == status, told.body
        assert (b'step \\"first\\" of acme-strict' in told.body) == (status == 403)
    with as_caller(guarded.frontend.address, WIDE) as wide:
        assert models_of(wide.predict("acme-strict", BALANCE)) == ["clinc150", "clinc150-banking"]
        assert wide.explain("acme-strict", BALANCE).explanation is not None
        with pytest.raises(PermissionDenied, match='step "clinc150-travel" of acme-strict'):
            wide.predict("acme-strict", TIMER)
        with pytest.raises(PermissionDenied):
            wide.predict("clinc150-travel", TIMER)


def test_a_pipeline_may_give_its_right_to_its_models_and_to_them_alone_through_it(guarded: Stack) -> None:
    with as_caller(guarded.frontend.address, NARROW) as narrow:
        given = narrow.predict("acme-open", BALANCE)
        assert (given.label, models_of(given)) == ("balance", ["clinc150", "clinc150-banking"])
        (batched,) = narrow.predict_batch([Query("acme-open", BALANCE)])
        assert answered(batched).label == "balance"
        for model in ("clinc150", "clinc150-banking"):
            with pytest.raises(PermissionDenied):
                narrow.predict(model, BALANCE)
        with pytest.raises(PermissionDenied):
            narrow.explain("acme-open", BALANCE)
    with as_caller(guarded.frontend.address, EXPLAINER) as explainer:
        assert explainer.explain("acme-open", BALANCE).explanation is not None
    with as_caller(guarded.frontend.address, "stranger") as stranger, pytest.raises(ServingError) as caught:
        stranger.predict("acme-open", BALANCE)
    assert caught.value.code is StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("role", ROLES)
def test_a_pipeline_that_gives_a_right_goes_live_by_who_may_manage_its_models(guarded: Stack, role: Role) -> None:
    with (
        as_manager(guarded.frontend.address, MANAGER) as manager,
        as_manager(guarded.frontend.address, OPERATOR) as operator,
        as_caller(guarded.frontend.address, NARROW) as narrow,
    ):
        name = f"acme-{role}"
        operator.release(name, "1")
        before = operator.release_of(name).release
        with pytest.raises(PermissionDenied, match=NOT_TO_GIVE):
            manager.release(name, "2", role=role)
        with pytest.raises(PermissionDenied, match=NOT_TO_GIVE):
            manager.load(name)
        assert operator.release_of(name).release == before
        assert narrow.predict(name, BALANCE).label == "balance"
        operator.release(name, "2", role=role)
        if role == "canary":
            with pytest.raises(PermissionDenied, match=NOT_TO_GIVE):
                manager.promote(name)
            assert operator.promote(name).release is not None
        if role != "shadow":
            with pytest.raises(PermissionDenied, match=NOT_TO_GIVE):
                manager.rollback(name)


def test_a_version_that_its_caller_could_not_ask_does_not_go_live(guarded: Stack) -> None:
    with (
        as_manager(guarded.frontend.address, MANAGER) as manager,
        as_manager(guarded.frontend.address, OPERATOR) as operator,
        as_caller(guarded.frontend.address, NARROW) as narrow,
    ):
        with pytest.raises(PermissionDenied, match='step "first" of acme-asking@1'):
            manager.release("acme-asking", "1")
        operator.release("acme-asking", "1")
        with pytest.raises(PermissionDenied, match='step "first" of acme-asking@1'):
            narrow.predict("acme-asking", BALANCE)


# Quotas


def test_each_document_that_a_model_is_asked_counts_in_the_quota_of_the_caller(guarded: Stack) -> None:
    with as_caller(guarded.frontend.address, "four") as caller:
        # One for the pipeline, and one for each of its two steps.
        assert models_of(caller.predict("acme-open", BALANCE)) == ["clinc150", "clinc150-banking"]
        # The fourth document is admitted: its steps are paid for by a longer wait, and are not refused.
        assert models_of(caller.predict("acme-open", BALANCE)) == ["clinc150", "clinc150-banking"]
        with pytest.raises(OutOfCapacity) as caught:
            caller.predict("acme-open", BALANCE)
        assert (caught.value.retry_after or 0) > 1
        assert "step" not in str(caught.value)
        with pytest.raises(OutOfCapacity):
            caller.predict("clinc150", BALANCE)


def test_a_pipeline_and_the_models_that_it_asks_are_one_call_in_flight(guarded: Stack) -> None:
    with as_caller(guarded.frontend.address, "one-at-once") as one:
        for _ in range(3):
            assert one.predict("acme-open", BALANCE).label == "balance"


def test_without_access_what_a_pipeline_asks_counts_in_the_quotas_of_its_models(tmp_path: Path) -> None:
    flags = ("--tenant-requests-per-second", "0.001", "--tenant-burst", "3")
    volume = write_volume(tmp_path / "models")
    with (
        running_service("model_service", volume, tmp_path, *flags, transport="http2") as service,
        IntentClient(service.address, timeout=PATIENCE) as client,
    ):
        assert models_of(client.predict(BY_DOMAIN, BALANCE)) == ["clinc150", "clinc150-banking"]
        assert client.predict("clinc150-banking", BALANCE).label == "balance"
        assert models_of(client.predict("over-name", BALANCE)) == ["bot@1"]
        last = client.predict(BY_DOMAIN, BALANCE)
        assert models_of(last) == ["clinc150", "clinc150-banking"]
        with pytest.raises(OutOfCapacity):
            client.predict("clinc150-banking", BALANCE)
        # The third document of the pipeline finds no room at its second step, which has no other way.
        with pytest.raises(OutOfCapacity, match='step "clinc150-banking" of clinc150-by-domain'):
            client.predict(BY_DOMAIN, BALANCE)
        with pytest.raises(OutOfCapacity) as caught:
            client.predict(BY_DOMAIN, BALANCE)
        assert "step" not in str(caught.value)
