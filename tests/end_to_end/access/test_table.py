"""Every method of every service with every kind of caller: only the calls that the table allows are answered."""

from __future__ import annotations

import functools
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from frontend.open_inference.rest.application import rest_application
from serving.stubs import model_service_pb2 as models_pb
from serving.stubs import model_service_pb2_grpc as models_grpc
from serving.stubs import open_inference_pb2 as inference_pb
from serving.stubs import open_inference_pb2_grpc as inference_grpc
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from tests.builders import PATIENCE
from tests.end_to_end.access.asked import FOR_ANYBODY_KNOWN, GRPC, OPEN, REST, REST_OPEN, Asks
from tests.end_to_end.access.callers import CALLERS, MINE_TO_BE, THEIRS, Caller
from tests.end_to_end.access.calls import call, inference, reflected, rest
from tests.end_to_end.processes import Service

REFUSALS = (StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED)
ALL = CALLERS["all rights"]


def refusal_of(asks: Asks, caller: Caller) -> StatusCode | None:
    """Return the status with which the caller is refused; ``None`` if the caller is admitted."""
    if caller.rights is None:
        return StatusCode.UNAUTHENTICATED
    return None if asks.allows(caller) else StatusCode.PERMISSION_DENIED


@functools.cache
def rest_routes() -> frozenset[str]:
    """Return every method and path of the REST API."""

    class NoBoundary:
        def guarded(self, *arguments: Any) -> None:
            """Do nothing: there is no caller to guard against."""

    nothing: Any = NoBoundary()
    application: Any = rest_application(nothing, 1, nothing)
    # Starlette answers HEAD wherever it answers GET, and in the same way.
    return frozenset(f"{m} {route.path}" for route in application.routes for m in route.methods if m != "HEAD")


def test_no_method_is_forgotten(guarded: Service) -> None:
    assert reflected(guarded.address, ALL.metadata) == {*GRPC, *OPEN, *FOR_ANYBODY_KNOWN}


def test_no_path_is_forgotten() -> None:
    assert rest_routes() == {*REST, *REST_OPEN}


@pytest.mark.parametrize("name", CALLERS)
def test_every_method_is_for_those_alone_who_may_call_it(name: str, guarded: Service) -> None:
    caller = CALLERS[name]
    with grpc.insecure_channel(guarded.address) as channel:
        for method, asks in GRPC.items():
            refusal = refusal_of(asks, caller)
            told = call(channel, method, asks, caller.metadata, moment=refusal is None)
            if refusal is None:
                assert told.code not in REFUSALS, method
            else:
                assert told.code is refusal, method


@pytest.mark.parametrize("transport", ["http2"], indirect=True)
@pytest.mark.parametrize("name", CALLERS)
def test_every_path_is_for_those_alone_who_may_take_it(name: str, guarded: Service) -> None:
    caller = CALLERS[name]
    for route, asks in REST.items():
        method, _, path = route.partition(" ")
        asked = path.format(model=asks.model, version="1.0")
        status = rest(
            guarded.address, method, asked, caller.metadata, inference(["x"]) if method == "POST" else None
        ).status
        expected = {None: None, StatusCode.UNAUTHENTICATED: 401, StatusCode.PERMISSION_DENIED: 403}
        wanted = expected[refusal_of(asks, caller)]
        assert status == wanted if wanted else status not in (401, 403, 500), route


@pytest.mark.parametrize("name", CALLERS)
def test_reflection_is_for_anybody_who_is_known(name: str, guarded: Service) -> None:
    caller = CALLERS[name]
    if caller.rights is not None:
        assert reflected(guarded.address, caller.metadata)
        return
    with pytest.raises(grpc.RpcError) as caught:
        reflected(guarded.address, caller.metadata)
    failed: Any = caught.value
    assert failed.code() is StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("name", ["no credential", "unknown key", "no rights"])
def test_probes_need_no_credential(name: str, guarded: Service) -> None:
    metadata = CALLERS[name].metadata
    with grpc.insecure_channel(guarded.address) as channel:
        # The published type stubs omit the call List.
        health: Any = health_pb2_grpc.HealthStub(channel)
        messages: Any = health_pb2
        options: Any = {"metadata": metadata, "timeout": PATIENCE}
        assert health.Check(health_pb2.HealthCheckRequest(), **options).status == 1
        assert health.List(messages.HealthListRequest(), **options).statuses["prediction.Predictor"].status == 1
        watch = health.Watch(health_pb2.HealthCheckRequest(), **options)
        assert next(watch).status == 1
        watch.cancel()


@pytest.mark.parametrize("transport", ["http2"], indirect=True)
@pytest.mark.parametrize("name", ["no credential", "unknown key", "no rights"])
def test_probes_of_http_need_no_credential(name: str, guarded: Service) -> None:
    for route in REST_OPEN:
        method, _, path = route.partition(" ")
        assert rest(guarded.address, method, path, CALLERS[name].metadata).status == 200


@pytest.mark.parametrize("name", CALLERS)
def test_what_is_not_there_tells_nothing(name: str, guarded: Service) -> None:
    with grpc.insecure_channel(guarded.address) as channel:
        unknown: list[Any] = [
            channel.unary_unary(f"/{path}") for path in ("prediction.Predictor/Nothing", "no.Service/Method")
        ]
        for start in unknown:
            with pytest.raises(grpc.RpcError) as caught:
                start(b"", metadata=CALLERS[name].metadata, timeout=PATIENCE)
            failed: Any = caught.value
            assert failed.code() is StatusCode.UNIMPLEMENTED
            assert "Nothing" not in failed.details()


# A model of another tenant


@pytest.mark.parametrize("name", ["predict", "explain", "manage", "all rights", "token", "delegate", "manager"])
def test_another_tenants_model_is_denied_alike_whether_or_not_it_is_there(name: str, guarded: Service) -> None:
    caller = CALLERS["manage, for another model" if name == "manager" else name]
    absent = "theirs-no-such"
    with grpc.insecure_channel(guarded.address) as channel:
        for method, asks in GRPC.items():
            if asks.field:
                told = {
                    model: call(channel, method, asks, caller.metadata, model=model)
                    for model in (THEIRS, absent, f"{THEIRS}@1", f"{THEIRS}@stable", f"{absent}@1")
                    if asks.field == "runId" or "@" not in model
                }
                assert len(set(told.values())) == 1, (method, told)
                assert told[THEIRS].code is StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("transport", ["http2"], indirect=True)
@pytest.mark.parametrize("name", ["predict", "all rights"])
def test_another_tenants_path_is_denied_alike_whether_or_not_it_is_there(name: str, guarded: Service) -> None:
    caller = CALLERS[name]
    for route, asks in REST.items():
        if asks.field:
            method, _, path = route.partition(" ")
            body = inference(["x"]) if method == "POST" else None
            answers = [
                rest(guarded.address, method, path.format(model=model, version=version), caller.metadata, body)
                for model, version in ((THEIRS, "1.0"), ("theirs-no-such", "1.0"), (THEIRS, "no-such"))
            ]
            assert len({(answer.status, answer.body) for answer in answers}) == 1, route
            assert answers[0].status == 403


def test_listings_tell_of_ones_own_models_alone(guarded: Service) -> None:
    options: Any = {"metadata": ALL.metadata, "timeout": PATIENCE}
    with grpc.insecure_channel(guarded.address) as channel:
        index = inference_grpc.GRPCInferenceServiceStub(channel).RepositoryIndex(
            inference_pb.RepositoryIndexRequest(), **options
        )
        assert [model.name for model in index.models] == ["mine"]
        listed = models_grpc.ModelServiceStub(channel).ListModels(models_pb.ListModelsRequest(), **options)
        assert [model.name for model in listed.models] == ["mine"]
        predictor = pb_grpc.PredictorStub(channel)
        pb_grpc.PredictionServiceStub(channel).Predict(pb.PredictRequest(runId="mine", document="x"), **options)
        stranger: Any = options | {"metadata": CALLERS["manage, for another model"].metadata}
        for given, seen in ((options, ["mine"]), (stranger, [])):
            residency = predictor.Residency(pb.ResidencyRequest(), **given)
            assert [model.model.id for model in residency.models] == seen
            traffic = predictor.Traffic(pb.TrafficRequest(), **given)
            assert [model.model.id for model in traffic.models] == seen


def test_nothing_has_happened_to_what_is_not_there(guarded: Service) -> None:
    with grpc.insecure_channel(guarded.address) as channel:
        method = "prediction.PredictionService/Predict"
        told = call(channel, method, GRPC[method], ALL.metadata, model=MINE_TO_BE)
    assert told.code is StatusCode.NOT_FOUND
