"""Calls of any method by any caller, over gRPC and REST, and their outcomes."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from serving.stubs import model_service_pb2, open_inference_pb2, prediction_service_pb2
from tests.builders import PATIENCE
from tests.end_to_end.access.asked import Asks
from tests.end_to_end.access.callers import Metadata

# Services that the server reflects are looked up in the descriptor pool, to which these modules add them.
_KNOWN: Final = (model_service_pb2, open_inference_pb2, prediction_service_pb2, health_pb2, reflection_pb2)
_A_MOMENT: Final = 0.2


class Answer(NamedTuple):
    """Outcome of a gRPC call, or of the only query in a batch."""

    code: grpc.StatusCode
    message: str = ""


class RestAnswer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def reflected(address: str, metadata: Metadata) -> frozenset[str]:
    """Return every method of every service that reflection at ``address`` lists. Raises grpc.RpcError."""
    with grpc.insecure_channel(address) as channel:
        ask: Any = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = ask(iter([question]), metadata=metadata, timeout=PATIENCE)
    services = [service.name for service in answer.list_services_response.service]
    pool = descriptor_pool.Default()
    return frozenset(f"{name}/{method.name}" for name in services for method in pool.FindServiceByName(name).methods)


def call(
    channel: grpc.Channel,
    method: str,
    asks: Asks,
    metadata: Metadata,
    *,
    model: str | None = None,
    moment: bool = False,
) -> Answer:
    """Call a method for the model of its requirements.

    Args:
        channel: channel to the service.
        method: name in the form ``package.Service/Method``.
        asks: requirements of the method, with the field of the request that names a model.
        metadata: metadata of the caller.
        model: model to use instead of that of ``asks``.
        moment: whether to leave a stream after a moment: no refusal comes that late.
    """
    service, _, name = method.rpartition("/")
    described = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    request: Any = message_factory.GetMessageClass(described.input_type)()
    if asks.field:
        setattr(request.requests.add() if asks.batch else request, asks.field, asks.model if model is None else model)
    kind = channel.unary_stream if described.server_streaming else channel.unary_unary
    start: Any = kind(
        f"/{method}",
        request_serializer=message_factory.GetMessageClass(described.input_type).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(described.output_type).FromString,
    )
    try:
        answer = start(request, metadata=metadata, timeout=_A_MOMENT if moment else PATIENCE)
        if described.server_streaming:
            for _ in answer:
                pass
            return Answer(grpc.StatusCode.OK)
    except grpc.RpcError as error:
        failed: Any = error
        return Answer(failed.code(), failed.details())
    if asks.batch:
        (result,) = answer.results
        return Answer(_CODES[result.status.code], result.status.message)
    return Answer(grpc.StatusCode.OK)


def rest(address: str, method: str, path: str, metadata: Metadata = (), body: bytes | None = None) -> RestAnswer:
    """Send a REST request."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request(method, path, body, dict(metadata))
        answer = connection.getresponse()
        return RestAnswer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def inference(documents: Sequence[str]) -> bytes:
    """Return the body of an inference request."""
    tensor = {"name": "document", "datatype": "BYTES", "shape": [len(documents)], "data": list(documents)}
    return json.dumps({"inputs": [tensor]}).encode()


_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
