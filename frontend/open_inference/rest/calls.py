"""Calls of the REST API: conversion of path and body to a message, and of the answer to JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.responses import JSONResponse, Response

from frontend.open_inference.rest.inference import JSON_LENGTH_HEADER, answer_of, inference_of
from frontend.open_inference.rest.json_requests import RestIndex, RestRequest, parse_request
from serving.domain.errors import InvalidRequest
from serving.stubs import open_inference_pb2 as pb
from serving.stubs import open_inference_pb2_grpc as pb_grpc

_NOT_READY: Final = 503
# Larger bodies are read in a thread, which keeps the event loop free.
_LARGE_BODY: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class RestCall:
    """Contents of a request."""

    path: Mapping[str, str]
    """Parameters of the path by name."""
    headers: Mapping[str, str]
    body: bytes

    @property
    def model(self) -> str:
        """The model's name as the caller wrote it, not yet checked."""
        return self.path["model"]

    @property
    def version(self) -> str:
        """Version in the path; empty: the server chooses."""
        return self.path.get("version", "")


class RestCalls:
    """Calls of the REST API, each checked and answered by ``servicer``."""

    def __init__(self, servicer: pb_grpc.GRPCInferenceServiceServicer) -> None:
        # The generated base class has one type for grpcio's threaded servers and its asyncio servers.
        self._servicer: Any = servicer

    async def server_live(self, call: RestCall) -> Response:
        """Return whether the server is alive."""
        del call
        response = await self._servicer.ServerLive(pb.ServerLiveRequest())
        return _readiness(response.live, {"live": response.live})

    async def server_ready(self, call: RestCall) -> Response:
        """Return whether the server can answer inferences."""
        del call
        response = await self._servicer.ServerReady(pb.ServerReadyRequest())
        return _readiness(response.ready, {"ready": response.ready})

    async def server_metadata(self, call: RestCall) -> Response:
        """Return name, version and extensions of the server."""
        del call
        return _json(await self._servicer.ServerMetadata(pb.ServerMetadataRequest()))

    async def model_ready(self, call: RestCall) -> Response:
        """Return whether a model can be served."""
        request = pb.ModelReadyRequest(name=call.model, version=call.version)
        response = await self._servicer.ModelReady(request)
        return _readiness(response.ready, {"name": call.model, "ready": response.ready})

    async def model_metadata(self, call: RestCall) -> Response:
        """Return versions and tensors of a model."""
        request = pb.ModelMetadataRequest(name=call.model, version=call.version)
        return _json(await self._servicer.ModelMetadata(request))

    async def model_config(self, call: RestCall) -> Response:
        """Return the configuration of a model."""
        request = pb.ModelConfigRequest(name=call.model, version=call.version)
        return _json((await self._servicer.ModelConfig(request)).config)

    async def model_statistics(self, call: RestCall) -> Response:
        """Return the statistics of one model, or of all models."""
        request = pb.ModelStatisticsRequest(name=call.path.get("model", ""), version=call.version)
        return _json(await self._servicer.ModelStatistics(request))

    async def infer(self, call: RestCall) -> Response:
        """Run an inference."""
        arguments = (call.model, call.version, call.body, call.headers.get(JSON_LENGTH_HEADER))
        large = len(call.body) > _LARGE_BODY
        request, forms = await asyncio.to_thread(inference_of, *arguments) if large else inference_of(*arguments)
        response = await self._servicer.ModelInfer(request)
        return await asyncio.to_thread(answer_of, response, forms) if large else answer_of(response, forms)

    async def repository_index(self, call: RestCall) -> Response:
        """List the existing models."""
        request = pb.RepositoryIndexRequest(ready=parse_request(RestIndex, call.body).ready)
        response = await self._servicer.RepositoryIndex(request)
        return JSONResponse([_as_dict(model) for model in response.models])

    async def load(self, call: RestCall) -> Response:
        """Load a model into memory."""
        request = pb.RepositoryModelLoadRequest(model_name=call.model)
        _set_parameters(request, call.body)
        await self._servicer.RepositoryModelLoad(request)
        return JSONResponse({"name": call.model, "load": True})

    async def unload(self, call: RestCall) -> Response:
        """Unload a model from memory."""
        request = pb.RepositoryModelUnloadRequest(model_name=call.model)
        _set_parameters(request, call.body)
        await self._servicer.RepositoryModelUnload(request)
        return JSONResponse({"name": call.model, "unload": True})


def _readiness(ready: bool, answer: dict[str, Any]) -> Response:
    # Triton clients read the status, KServe clients the body.
    return JSONResponse(answer, 200 if ready else _NOT_READY)


def _json(message: Message) -> Response:
    return JSONResponse(_as_dict(message))


def _as_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        unquote_int64_if_possible=True,
    )


def _set_parameters(request: Any, body: bytes) -> None:
    for name, value in parse_request(RestRequest, body).parameters.items():
        parameter = request.parameters[name]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, str):
            parameter.string_param = value
        elif isinstance(value, int) and value < 1 << 63:
            parameter.int64_param = value
        else:
            raise InvalidRequest("the parameters of this call must be strings, true or false, or integers of 64 bits")
