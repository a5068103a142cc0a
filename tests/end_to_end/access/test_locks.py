"""Access checks of running services: refusal before a message is read, quotas per tenant, and delegation."""

from __future__ import annotations

import functools
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from serving.stubs import open_inference_pb2 as inference_pb
from serving.stubs import open_inference_pb2_grpc as inference_grpc
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from tests.access import a_key, identity_of, in_the_past, replace_file, write_access
from tests.builders import PATIENCE, publish
from tests.end_to_end.access.callers import CALLERS, MINE, THEIRS, Metadata
from tests.end_to_end.access.calls import inference, rest
from tests.end_to_end.processes import Service, Stack, running_service, stack, start


def sends(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),) if key else ()


def failure_of(ask: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        ask()
    return caught.value


def predict(address: str, key: str, model: str = MINE, document: str = "book a flight") -> str:
    """Return the label of the answer, or the name of the status."""
    with grpc.insecure_channel(address) as channel:
        stub = pb_grpc.PredictionServiceStub(channel)
        try:
            request = pb.PredictRequest(runId=model, document=document)
            return stub.Predict(request, metadata=sends(key), timeout=PATIENCE).label
        except grpc.RpcError as error:
            failed: Any = error
            return str(failed.code().name)


def codes(address: str, key: str, models: Sequence[str]) -> list[str]:
    """Return the status of each query of a batch."""
    requests = [pb.PredictRequest(runId=model, document="book a flight") for model in models]
    with grpc.insecure_channel(address) as channel:
        batch = pb_grpc.PredictionServiceStub(channel).PredictBatch(
            pb.PredictBatchRequest(requests=requests), metadata=sends(key), timeout=PATIENCE
        )
    names = {code.value[0]: code.name for code in StatusCode}
    return [names[result.status.code] for result in batch.results]


# Unknown callers are refused before their message is read


@pytest.mark.parametrize("name", [name for name, caller in CALLERS.items() if caller.rights is None])
def test_who_is_not_known_is_refused_before_their_message_is_read(name: str, guarded: Service) -> None:
    damaged = b"\x0a\x05ab"
    with grpc.insecure_channel(guarded.address) as channel:
        ask: Any = channel.unary_unary("/prediction.PredictionService/Predict")
        refused = failure_of(lambda: ask(damaged, metadata=CALLERS[name].metadata, timeout=PATIENCE))
        read = failure_of(lambda: ask(damaged, metadata=CALLERS["predict"].metadata, timeout=PATIENCE))
    assert (refused.code(), read.code()) == (StatusCode.UNAUTHENTICATED, StatusCode.INVALID_ARGUMENT)


@pytest.mark.parametrize("transport", ["http2"], indirect=True)
def test_who_is_not_known_is_refused_before_their_body_comes(guarded: Service) -> None:
    host, _, port = guarded.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        head = f"POST /v2/models/{MINE}/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
        connection.sendall(head.encode())
        answer = connection.recv(4096).decode()
    assert answer.startswith("HTTP/1.1 401")
    assert "www-authenticate: Bearer" in answer


def test_no_log_line_has_a_credential_and_every_management_call_has_one(guarded: Service) -> None:
    with grpc.insecure_channel(guarded.address) as channel:
        stub = inference_grpc.GRPCInferenceServiceStub(channel)
        request = inference_pb.RepositoryModelUnloadRequest(model_name=MINE)
        stub.RepositoryModelUnload(request, metadata=CALLERS["manage"].metadata, timeout=PATIENCE)
        for name, model in (("predict", MINE), ("manage", THEIRS)):
            denied = inference_pb.RepositoryModelUnloadRequest(model_name=model)
            ask = functools.partial(stub.RepositoryModelUnload, denied, metadata=CALLERS[name].metadata)
            failure_of(functools.partial(ask, timeout=PATIENCE))
    lines = [line for line in guarded.events() if line["event"] == "audit"]
    told = [(line["action"], line["model"], line["identity"], line["code"]) for line in lines]
    assert ("unload", MINE, "manage", "OK") in told
    assert ("unload", THEIRS, "manage", "PERMISSION_DENIED") in told
    assert ("inference.GRPCInferenceService/RepositoryModelUnload", "", "predict", "PERMISSION_DENIED") in told
    assert all(line["request_id"] for line in lines)
    log = guarded.log.read_text()
    for caller in CALLERS.values():
        for _, sent in caller.metadata:
            assert sent.rpartition(" ")[2] not in log


# Quotas


@contextmanager
def frugal(models: Path, folder: Path, transport: str, *flags: str, **limits: float) -> Iterator[Service]:
    """Run the services with a tenant that has ``limits`` and another tenant without."""
    identities = {
        "frugal": identity_of("frugal", "predict", limits=limits),
        "other": identity_of("other", "predict"),
    }
    access = ("--access-file", str(write_access(folder, identities)))
    with running_service("model_service", models, folder, *access, *flags, transport=transport) as service:
        yield service


def test_a_tenant_over_its_quota_is_refused_and_others_are_not(transport: str, models: Path, tmp_path: Path) -> None:
    with frugal(models, tmp_path, transport, requests_per_second=0.001, burst=3) as service:
        assert codes(service.address, a_key("frugal"), [MINE, MINE, MINE]) == ["OK"] * 3

        def of_the_other(number: int) -> str:
            return predict(service.address, a_key("other"), document=f"book flight {number}")

        with ThreadPoolExecutor(8) as pool:
            others = [pool.submit(of_the_other, number) for number in range(64)]
            own = [pool.submit(predict, service.address, a_key("frugal")) for _ in range(64)]
            assert {answer.result() for answer in own} == {"RESOURCE_EXHAUSTED"}
            assert "RESOURCE_EXHAUSTED" not in {answer.result() for answer in others}
        with grpc.insecure_channel(service.address) as channel:
            stub = pb_grpc.PredictionServiceStub(channel)
            request = pb.PredictRequest(runId=MINE, document="x")
            told = failure_of(lambda: stub.Predict(request, metadata=sends(a_key("frugal")), timeout=PATIENCE))
        seconds = float(dict(told.trailing_metadata())["retry-after"])
        assert 0 < seconds <= 3000
        if transport == "http2":
            path = f"/v2/models/{MINE}/infer"
            answer = rest(service.address, "POST", path, sends(a_key("frugal")), inference(["x"]))
            assert (answer.status, 0 < int(answer.headers["retry-after"]) <= 1000) == (429, True)
            assert rest(service.address, "POST", path, sends(a_key("other")), inference(["x"])).status == 200


def test_without_access_each_model_has_a_quota(transport: str, models: Path, tmp_path: Path) -> None:
    flags = ("--tenant-requests-per-second", "0.001", "--tenant-burst", "2")
    with running_service("model_service", models, tmp_path, *flags, transport=transport) as service:
        exhausted = "RESOURCE_EXHAUSTED"
        assert codes(service.address, "", [MINE, MINE]) == ["OK", "OK"]
        assert codes(service.address, "", [MINE, THEIRS, MINE]) == [exhausted, "OK", exhausted]
        assert predict(service.address, "", THEIRS) not in (exhausted, "UNAVAILABLE")
        assert predict(service.address, "", MINE) == exhausted


# The file changes while the service runs


def test_a_key_that_was_taken_away_is_refused_soon_and_a_new_one_known(
    transport: str, models: Path, tmp_path: Path
) -> None:
    path = write_access(tmp_path, {"acme": identity_of("acme", "predict", keys=["old"])})
    flags = ("--access-file", str(path))
    with running_service("model_service", models, tmp_path, *flags, transport=transport) as service:
        assert predict(service.address, "new") == "UNAUTHENTICATED"
        write_access(tmp_path, {"acme": identity_of("acme", "predict", keys=["old", "new"])})
        until(lambda: predict(service.address, "new") != "UNAUTHENTICATED")
        assert predict(service.address, "old") == predict(service.address, "new")
        write_access(tmp_path, {"acme": identity_of("acme", "predict", keys=["new"])})
        until(lambda: predict(service.address, "old") == "UNAUTHENTICATED")
        replace_file(path, "{")
        assert service.wait_until_logged("configuration not reloaded; the former stays in force")["level"] == "error"
        assert predict(service.address, "new") != "UNAUTHENTICATED"


@pytest.mark.parametrize("flag", ["--access-file", "--predictor-credential-file"])
def test_a_file_that_cannot_be_used_is_told_at_the_start(flag: str, models: Path, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("two words")
    with pytest.raises(AssertionError, match="wrong settings, not started"):
        started(models, tmp_path, flag, str(path))


def started(models: Path, logs: Path, *flags: str) -> None:
    service = start("frontend", models, logs, *flags)
    try:
        service.wait_until_logged("listening")
    finally:
        service.kill()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Checked again where the query is answered


@contextmanager
def guarded_stack(models: Path, folder: Path, transport: str, predictor: dict[str, Any]) -> Iterator[Stack]:
    """Run both services, each with its own access file; the frontend sends the key of ``frontend``."""
    front = write_access(
        folder / "frontend",
        {name: identity_of(name, "predict", "explain", "manage") for name in ("acme", "other", "stranger")},
    )
    key = folder / "frontend.key"
    key.write_text(a_key("frontend") + "\n")
    back = write_access(folder / "predictor", predictor)
    with stack(
        models,
        folder,
        frontend=("--access-file", str(front), "--predictor-credential-file", str(key)),
        predictor=("--access-file", str(back)),
        transport=transport,
    ) as both:
        yield both


def test_a_predictor_checks_again_who_asks_for_what(transport: str, models: Path, tmp_path: Path) -> None:
    identities = {
        "frontend": identity_of("frontend", "delegate"),
        "acme": identity_of("acme", "predict", models=[MINE], keys=[]),
        "other": identity_of("other", "predict", models=[THEIRS], keys=[]),
        "direct": identity_of("direct", "predict", models=[MINE]),
    }
    with guarded_stack(models, tmp_path, transport, identities) as both:
        address = both.frontend.address
        denied = "PERMISSION_DENIED"
        assert predict(address, a_key("acme")) != denied
        # The frontend's file allows all of these calls.
        assert predict(address, a_key("acme"), THEIRS) == denied
        assert predict(address, a_key("stranger")) == denied
        assert codes(address, a_key("acme"), [MINE, THEIRS, MINE]) == ["OK", denied, "OK"]
        # Queries of several callers arrive in one batch, and each is checked for its own caller.
        with ThreadPoolExecutor(16) as pool:
            asked = [(name, model) for name in ("acme", "other") for model in (MINE, THEIRS)] * 16
            answers = list(pool.map(lambda one: predict(address, a_key(one[0]), one[1]), asked))
        for (name, model), answer in zip(asked, answers, strict=True):
            assert (answer == denied) is ((name, model) in (("acme", THEIRS), ("other", MINE))), (name, model, answer)
        with grpc.insecure_channel(both.predictor.address) as channel:
            stub = pb_grpc.PredictorStub(channel)

            def ask(key: str, model: str, caller: str) -> str:
                request = pb.PredictorPredictRequest(runId=model, document="x", caller=caller)
                try:
                    stub.PredictorPredict(request, metadata=sends(a_key(key)), timeout=PATIENCE)
                except grpc.RpcError as error:
                    failed: Any = error
                    return str(failed.code().name)
                return "OK"

            # A caller without the right to delegate is checked as itself, whichever caller it names.
            assert [ask("direct", model, "other") for model in (MINE, THEIRS)] == ["OK", denied]
            assert [ask("frontend", MINE, caller) for caller in ("acme", "other", "nobody", "")] == [
                "OK", denied, denied, denied,
            ]  # fmt: skip
        # A right to manage at the frontend is unknown to the predictor.
        with grpc.insecure_channel(address) as channel:
            frontend = inference_grpc.GRPCInferenceServiceStub(channel)
            request = inference_pb.RepositoryModelUnloadRequest(model_name=MINE)
            unload = lambda: frontend.RepositoryModelUnload(request, metadata=sends(a_key("acme")), timeout=PATIENCE)  # noqa: E731
            assert failure_of(unload).code() is StatusCode.PERMISSION_DENIED
        (line,) = [line for line in both.predictor.events() if line["event"] == "audit"]
        told = (line["action"], line["model"], line["identity"], line["caller"], line["code"])
        assert told == ("unload", MINE, "frontend", "acme", denied)


def test_a_pipeline_that_gives_rights_asks_in_the_frontends_name_and_says_what_that_needs(
    transport: str, models: Path, tmp_path: Path
) -> None:
    volume = tmp_path / "models"
    shutil.copytree(models, volume)
    publish(
        volume, "given", files={}, Algorithm="pipeline", classes={}, Start="a", Steps={"a": {"ask": MINE}},
        Rights="pipeline",
    )  # fmt: skip
    frontend = identity_of("frontend", "delegate")
    with guarded_stack(volume, tmp_path, transport, {"frontend": frontend}) as both:
        with grpc.insecure_channel(both.frontend.address) as channel:
            stub = pb_grpc.PredictionServiceStub(channel)
            request = pb.PredictRequest(runId="given", document="book a flight")
            failed = failure_of(lambda: stub.Predict(request, metadata=sends(a_key("acme")), timeout=PATIENCE))
        assert failed.code() is StatusCode.PERMISSION_DENIED
        assert 'step "a" of given: the frontend\'s own credential has no right to predict' in failed.details()
        assert "the predictor's access file" in failed.details()
        frontend = identity_of("frontend", "delegate", "predict")
        write_access(tmp_path / "predictor", {"frontend": frontend})
        until(lambda: predict(both.frontend.address, a_key("acme"), "given") != "PERMISSION_DENIED")


def test_a_frontend_that_the_predictor_does_not_know_says_so_and_blames_no_caller(
    transport: str, models: Path, tmp_path: Path
) -> None:
    frontend = identity_of("frontend", "delegate")
    frontend["keys"][0]["expires"] = in_the_past()
    identities = {"frontend": frontend, "acme": identity_of("acme", "predict", keys=[])}
    with guarded_stack(models, tmp_path, transport, identities) as both:
        assert predict(both.frontend.address, a_key("acme")) == "UNAVAILABLE"
        frontend["keys"][0].pop("expires")
        write_access(tmp_path / "predictor", identities)
        until(lambda: predict(both.frontend.address, a_key("acme")) != "UNAVAILABLE")
