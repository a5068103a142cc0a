"""Health, reflection and grpcurl, on every transport."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.builders import PATIENCE, SERVING
from tests.end_to_end.processes import grpcurl
from tests.end_to_end.transports.callers import SyncCaller
from tests.end_to_end.transports.orders import Echo, Order
from tests.end_to_end.transports.program import ECHO, GUARDED

SERVICES = {ECHO, GUARDED, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [grpcurl(), "-plaintext", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def asked(address: str, method: str, *orders: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Let grpcurl call a method of the echo service, which it discovers by reflection."""
    messages = "".join(json.dumps(json.dumps(order)) for order in orders)
    return run("-v", "-d", messages, address, f"{ECHO}/{method}")


def health(address: str) -> Any:
    channel = grpc.insecure_channel(address)
    # The published type stubs of the health service omit Watch.
    return health_pb2_grpc.HealthStub(channel)


# Health


@pytest.mark.parametrize("service", ["", ECHO, GUARDED])
def test_health_is_checked(address: str, service: str) -> None:
    request = health_pb2.HealthCheckRequest(service=service)

    assert health(address).Check(request, timeout=PATIENCE).status == SERVING


def test_health_of_what_is_not_there_is_not_found(address: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        health(address).Check(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=PATIENCE)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND


def test_health_is_watched_by_many(address: str) -> None:
    stub = health(address)
    watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE) for _ in range(50)]

    assert [next(watch).status for watch in watches] == [SERVING] * 50
    for watch in watches:
        watch.cancel()
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == SERVING


@pytest.mark.parametrize("service", ["", ECHO, GUARDED])
def test_health_of_a_service_is_watched(address: str, service: str) -> None:
    watch = health(address).Watch(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)

    assert next(watch).status == SERVING
    watch.cancel()


def test_health_of_what_is_not_there_yet_may_be_watched(address: str) -> None:
    watch = health(address).Watch(health_pb2.HealthCheckRequest(service="no.such.Service"), timeout=PATIENCE)

    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def test_grpcurl_asks_for_health(address: str) -> None:
    answer = run(address, "grpc.health.v1.Health/Check")

    assert json.loads(answer.stdout) == {"status": "SERVING"}


# Reflection


def test_grpcurl_lists_the_services(address: str) -> None:
    assert set(run(address, "list").stdout.split()) == SERVICES


@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("grpc.health.v1.Health", "rpc Watch"),
        ("grpc.health.v1.HealthCheckRequest", "string service = 1;"),
        (ECHO, "rpc Both ( stream .google.protobuf.StringValue ) returns ( stream .google.protobuf.StringValue );"),
        ("google.protobuf.StringValue", "string value = 1;"),
    ],
)
def test_grpcurl_describes(address: str, what: str, found: str) -> None:
    answer = run(address, "describe", what)

    assert answer.returncode == 0, answer.stderr
    assert found in answer.stdout


def test_grpcurl_is_told_what_is_not_there(address: str) -> None:
    answer = run(address, "describe", "no.such.Service")

    assert answer.returncode != 0
    assert "not found" in answer.stderr


# Calls by grpcurl


@pytest.mark.parametrize("method", ["Unary", "ClientStream", "ServerStream", "WrittenServerStream", "Both"])
def test_grpcurl_calls(address: str, method: str) -> None:
    answer = asked(address, method, {"text": "é", "initial": [["a", "1"]], "trailing": [["b-bin", {"base64": "AAE="}]]})

    assert answer.returncode == 0, answer.stderr
    (line,) = (line for line in answer.stdout.splitlines() if line.startswith('"'))
    assert json.loads(json.loads(line))["text"] == "é"
    assert "a: 1" in answer.stdout.splitlines()
    assert "b-bin: AAE=" in answer.stdout.splitlines()


def test_grpcurl_streams(address: str) -> None:
    answer = asked(address, "Both", *({"text": str(number), "times": 2} for number in range(10)))

    texts = [json.loads(json.loads(line))["text"] for line in answer.stdout.splitlines() if line.startswith('"')]
    assert texts == [str(number) for number in range(10) for _ in range(2)]


@pytest.mark.parametrize("method", ["Unary", "ClientStream", "ServerStream", "Both"])
def test_grpcurl_is_told_a_status(address: str, method: str) -> None:
    answer = asked(address, method, {"abort": ["NOT_FOUND", "no such é"]})

    assert answer.returncode != 0
    assert "Code: NotFound" in answer.stderr
    assert "Message: no such é" in answer.stderr


def test_grpcurl_sends_metadata(address: str) -> None:
    answer = run("-H", "key: value", "-H", "key-bin: AAE=", "-d", json.dumps("{}"), address, f"{ECHO}/Unary")

    (line,) = answer.stdout.splitlines()
    metadata = Echo.from_wire(StringValue(value=json.loads(line)).SerializeToString()).metadata
    assert {("key", "value"), ("key-bin", b"\0\1")} <= set(metadata)


@pytest.mark.parametrize("method", ["Unary", "ClientStream", "ServerStream", "Both"])
def test_grpcurl_sets_a_deadline(address: str, method: str) -> None:
    order = json.dumps(json.dumps({"wait": "never"}))
    answer = run("-max-time", "1", "-d", order, address, f"{ECHO}/{method}")

    assert answer.returncode != 0
    assert "DeadlineExceeded" in answer.stderr


@pytest.mark.parametrize("method", ["Unary", "ClientStream", "ServerStream", "Both"])
def test_a_servicer_is_cancelled_when_the_process_that_calls_is_killed(address: str, method: str) -> None:
    name = f"killed in {method}"
    order = json.dumps(json.dumps({"name": name, "wait": "never"}))
    command = [grpcurl(), "-plaintext", "-d", order, address, f"{ECHO}/{method}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        started = SyncCaller().call(address, "Noted", Order(name=f"{name} started"))
        process.kill()

    assert started.code == "OK"
    assert SyncCaller().call(address, "Noted", Order(name=f"{name} cancelled")).code == "OK"
