"""A pipeline behind every door of real services, and through its life as a model among others."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from intent_serving_client.channels import ChannelOptions
from serving.client import IntentClient, ManagementClient, Prediction, Query
from serving.domain.errors import ModelNotFound, ModelUnusable, OutOfCapacity, PermissionDenied, ServingError
from serving.domain.prediction import Onward
from serving.wire.residency_client import ask_residency
from tests.access import a_key, identity_of, write_access
from tests.builders import PATIENCE, free_port, publish
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, Stack, grpcurl, running_service, stack, transports
from tests.end_to_end.test_releases import metric
from tests.end_to_end.test_uploads import eventually
from tests.samples import copy_samples

DOCUMENT: Final = "what is my balance"
ELSEWHERE: Final = "make a 10 minute timer"
UNSURE: Final = "how might i say hello if i were scottish"
"""Text of which the model of the domain is unsure."""
LIMITS: Final = {"requests_per_second": 0.001, "burst": 4}
PIPELINE: Final = "clinc150-by-domain"
DOMAIN: Final = "clinc150-banking"
SAMPLE_PIPELINES: Final = (PIPELINE, "banking77-in-scope")


def pipeline(volume: Path, model_id: str, steps: Mapping[str, Any], **keys: Any) -> None:
    publish(volume, model_id, files={}, Algorithm="pipeline", classes={}, Start="first", Steps=steps, **keys)


def copy_of_samples(volume: Path) -> Path:
    """Copy the sample models and the sample pipelines into a new folder."""
    copy_samples(volume)
    for model_id in SAMPLE_PIPELINES:
        shutil.copytree(ROOT / "models" / model_id, volume / model_id)
    return volume


@pytest.fixture(scope="module", params=transports())
def services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    volume = copy_of_samples(tmp_path_factory.mktemp("volume") / "models")
    with stack(volume, tmp_path_factory.mktemp("logs"), transport=request.param) as both:
        yield both


@pytest.fixture
def client(services: Stack) -> Iterator[IntentClient]:
    with IntentClient(services.frontend.address, timeout=PATIENCE) as made:
        yield made


@pytest.fixture
def management(services: Stack) -> Iterator[ManagementClient]:
    with ManagementClient(services.frontend.address, timeout=PATIENCE) as made:
        yield made


def asked(service: Service, method: str, **request: Any) -> dict[str, Any]:
    command = [grpcurl(), "-plaintext", "-d", json.dumps(request), service.address, method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def over_http(service: Service, path: str, body: object = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://{service.address}{path}", data=data, timeout=PATIENCE) as answer:
        parsed: dict[str, Any] = json.load(answer)
    return parsed


# Doors


def test_grpcurl_shows_the_answer_and_its_path(services: Stack) -> None:
    answer = asked(services.frontend, "prediction.PredictionService/Predict", runId=PIPELINE, document=DOCUMENT)
    assert json.loads(answer["response"]) == {"result": "balance"}
    assert answer["model"] == {"id": PIPELINE, "version": "1.0"}
    first, last = answer["path"]
    assert (first["name"], first["label"], first["onward"], first["next"]) == ("domain", "balance", "ROUTED", DOMAIN)
    assert first["models"] == [{"id": "clinc150", "version": "1.0"}]
    assert first["milliseconds"] > 0
    assert (last["name"], last["label"], last["onward"]) == (DOMAIN, "balance", "ANSWERED")
    assert last["score"] == answer["score"]


def test_a_batch_mixes_pipelines_models_and_mistakes(client: IntentClient) -> None:
    queries = [
        Query(model_id, document, k=2)
        for document in (DOCUMENT, ELSEWHERE, "", "xyzzy")
        for model_id in (*SAMPLE_PIPELINES, "clinc150", "no-such-model", "../x")
    ]
    together = client.predict_batch(queries)
    assert [compared(outcome) for outcome in together] == [compared(outcome_of(client, query)) for query in queries]
    assert sum(isinstance(outcome, Prediction) for outcome in together) == 3 * 4


def outcome_of(client: IntentClient, query: Query) -> Prediction | ServingError:
    try:
        return client.predict(query.model_id, query.document, k=query.k)
    except ServingError as error:
        return error


def compared(outcome: Prediction | ServingError) -> object:
    """Return everything but times, and the digits of scores that depend on the documents that are asked together."""
    if isinstance(outcome, ServingError):
        return outcome.code, str(outcome)
    ways = [(step.name, step.models, step.label, step.onward, step.next) for step in outcome.path]
    return outcome.label, round(outcome.score, 4), outcome.model_id, outcome.fallback is None, ways


def test_an_explanation_is_that_of_the_step_that_answered(client: IntentClient) -> None:
    for document, model_id in ((DOCUMENT, DOMAIN), (ELSEWHERE, "clinc150")):
        explained = client.explain(PIPELINE, document, ["oos"])
        assert explained.explanation == client.explain(model_id, document, ["oos"]).explanation
        assert explained.model_id == PIPELINE
        assert explained.path[-1].models[0].model_id == model_id


@pytest.mark.parametrize("services", ["http2"], indirect=True)
def test_the_open_inference_protocol_has_the_label_and_the_path_on_request(services: Stack) -> None:
    frontend = services.frontend
    assert over_http(frontend, f"/v2/models/{PIPELINE}/ready")["ready"] is True
    metadata = over_http(frontend, f"/v2/models/{PIPELINE}")
    assert [output["name"] for output in metadata["outputs"]] == ["label", "score"]
    body = {
        "inputs": [{"name": "document", "datatype": "BYTES", "shape": [2], "data": [DOCUMENT, ELSEWHERE]}],
        "outputs": [{"name": "label"}, {"name": "path"}],
    }
    answer = over_http(frontend, f"/v2/models/{PIPELINE}/infer", body)
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs["label"] == ["balance", "timer"]
    assert [[step["name"] for step in json.loads(path)] for path in outputs["path"]] == [
        ["domain", DOMAIN],
        ["domain", "clinc150"],
    ]
    inferred = asked(
        frontend,
        "inference.GRPCInferenceService/ModelInfer",
        model_name=PIPELINE,
        inputs=[
            {
                "name": "document",
                "datatype": "BYTES",
                "shape": [1],
                "contents": {"bytes_contents": ["d2hhdCBpcyBteSBiYWxhbmNl"]},
            }
        ],
    )
    assert inferred["model_name"] == PIPELINE, inferred


# Life


def test_a_pipeline_is_listed_described_and_loads_its_models(services: Stack, management: ManagementClient) -> None:
    assert [model.name for model in management.models(algorithm="pipeline")] == sorted(SAMPLE_PIPELINES)
    described = management.describe(PIPELINE)
    assert json.loads(described.manifest)["Start"] == "domain"
    for model_id in ("clinc150-travel", "clinc150-kitchen"):
        management.unload(model_id)
    residence = management.load(PIPELINE)
    assert residence is not None
    assert residence.resident
    resident = {model.id for model in ask_residency(services.predictor.address).models}
    assert resident >= {"clinc150", DOMAIN, "clinc150-travel", "clinc150-kitchen"}
    management.unload(PIPELINE)
    assert {model.id for model in ask_residency(services.predictor.address).models} == resident


def test_a_pipeline_that_does_not_fit_its_models_does_not_go_live(
    services: Stack, client: IntentClient, management: ManagementClient
) -> None:
    pipeline(services.models, "bot/1", {"first": {"ask": DOMAIN}})
    pipeline(services.models, "bot/2", {"first": {"ask": DOMAIN, "route": {"balance": "gone"}}})
    management.release("bot", "1")
    with pytest.raises(ModelUnusable) as refused:
        management.release("bot", "2")
    for fault in ('step "first" has no route for', 'step "gone" asks gone'):
        assert fault in str(refused.value)
    assert client.predict("bot", DOCUMENT).model_id == "bot@1"


def test_deleting_a_pipeline_leaves_its_models(
    services: Stack, client: IntentClient, management: ManagementClient
) -> None:
    pipeline(services.models, "short-lived", {"first": {"ask": DOMAIN}})
    eventually(lambda: _label(client, "short-lived") == "balance")
    management.delete("short-lived", force=True)
    eventually(lambda: _label(client, "short-lived") is None)
    assert client.predict(DOMAIN, DOCUMENT).label == "balance"


def _label(client: IntentClient, model_id: str) -> str | None:
    try:
        return client.predict(model_id, DOCUMENT).label
    except ModelNotFound:
        return None


def test_versions_of_pipelines_and_of_their_models_are_released_tried_and_shadowed(tmp_path: Path) -> None:
    volume = tmp_path / "models"
    volume.mkdir()
    for version in ("1", "2"):
        shutil.copytree(ROOT / "models" / DOMAIN, volume / "bank" / version)
    pipeline(volume, "bot/1", {"first": {"ask": "bank@stable"}}, ModelVersion="one")
    pipeline(volume, "bot/2", {"first": {"ask": "bank", "route": {"balance": "bank@2"}, "otherwise": "bank@1"}})
    port = free_port()
    flags = ("--metrics-port", str(port), "--release-freshness-seconds", "0.2")
    with (
        stack(volume, tmp_path, frontend=flags) as both,
        IntentClient(both.frontend.address, timeout=PATIENCE) as client,
        ManagementClient(both.frontend.address, timeout=PATIENCE) as management,
    ):
        management.release("bank", "1")
        management.release("bot", "1")
        answer = client.predict("bot", DOCUMENT)
        assert (answer.model_id, answer.model_version) == ("bot@1", "one")
        assert [model.model_id for model in answer.path[0].models] == ["bank@1"]

        management.release("bank", "2")
        eventually(lambda: client.predict("bot", DOCUMENT).path[0].models[0].model_id == "bank@2")
        management.rollback("bank")
        eventually(lambda: client.predict("bot", DOCUMENT).path[0].models[0].model_id == "bank@1")

        management.release("bot", "2", role="canary", share=0.5)
        eventually(lambda: client.predict("bot", DOCUMENT).model_id == "bot@2")
        of_a_key = {client.predict("bot", DOCUMENT, key="conversation").model_id for _ in range(20)}
        assert len(of_a_key) == 1
        management.promote("bot")
        eventually(lambda: client.predict("bot", DOCUMENT).model_id == "bot@2")
        assert [step.onward for step in client.predict("bot", DOCUMENT).path] == [Onward.ROUTED, Onward.ANSWERED]

        management.release("bot", "1", role="shadow")
        labels = '{model="bot",role="shadow",version="1"}'
        eventually(lambda: _compared(client, port, labels))
        assert metric(port, f"intent_release_agreed_total{labels}") > 0
        counted = 'intent_pipeline_step_documents_total{model="bot@2",onward="routed",step="first"}'
        eventually(lambda: metric(port, counted) > 0)
        assert metric(port, 'intent_pipeline_step_seconds_count{model="bot@2",step="bank@2"}') > 0


def _compared(client: IntentClient, port: int, labels: str) -> bool:
    client.predict("bot", DOCUMENT)
    return metric(port, f"intent_release_compared_total{labels}") > 0


# Rights and quotas


def test_the_caller_needs_the_rights_of_each_model_unless_the_pipeline_gives_them(tmp_path: Path) -> None:
    volume = copy_of_samples(tmp_path / "models")
    steps = {"first": {"ask": DOMAIN, "otherwise": "clinc150"}}
    pipeline(volume, "mine/1", steps)
    pipeline(volume, "mine/2", steps, Rights="pipeline")
    access = write_access(
        tmp_path / "access",
        {
            "tenant": identity_of("tenant", "predict", "explain", models=["mine"]),
            "owner": identity_of("owner", "predict", "manage", models=["mine", DOMAIN]),
            "operator": identity_of("operator", "manage"),
            "limited": identity_of("limited", "predict", limits=LIMITS),
        },
    )
    with running_service("model_service", volume, tmp_path, "--access-file", str(access)) as service:
        tenant, owner, limited = (
            IntentClient(service.address, timeout=PATIENCE, options=ChannelOptions(credential=a_key(name)))
            for name in ("tenant", "owner", "limited")
        )
        with tenant, owner, limited:
            assert owner.predict("mine@1", DOCUMENT).label == "balance"
            # The owner has no right to the model that is asked where the first one is unsure.
            with pytest.raises(PermissionDenied, match='step "clinc150" of mine@1'):
                owner.predict("mine@1", UNSURE)
            with pytest.raises(PermissionDenied, match='step "first" of mine@1'):
                tenant.predict("mine@1", DOCUMENT)
            batch = tenant.predict_batch([Query("mine@1", DOCUMENT), Query("mine@2", DOCUMENT), Query(DOMAIN, "x")])
            assert [isinstance(outcome, Prediction) for outcome in batch] == [False, True, False]
            assert tenant.predict("mine@2", UNSURE).path[-1].name == "clinc150"
            with pytest.raises(PermissionDenied):
                tenant.predict(DOMAIN, DOCUMENT)
            assert tenant.explain("mine@2", DOCUMENT).explanation is not None
            with pytest.raises(PermissionDenied):
                owner.explain("mine@2", DOCUMENT)

            with managing(service, "owner") as management:
                management.release("mine", "1")
                with pytest.raises(PermissionDenied, match="clinc150"):
                    management.release("mine", "2")
            with managing(service, "operator") as management:
                management.release("mine", "2")

            # Each call takes a document for the pipeline, and one for its model.
            for _ in range(2):
                assert limited.predict("mine@1", DOCUMENT).label == "balance"
            with pytest.raises(OutOfCapacity):
                limited.predict("mine@1", DOCUMENT)


def managing(service: Service, caller: str) -> ManagementClient:
    return ManagementClient(service.address, timeout=PATIENCE, options=ChannelOptions(credential=a_key(caller)))
