"""The calls of the protocol in their REST form: a path and a body to a message, and the answer to JSON."""

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
# Reading more than that is better done in a thread, and the event loop goes on meanwhile.
_LARGE_BODY: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class RestCall:
    """What a request asks."""

    path: Mapping[str, str]
    """The parts of the path that stand for something."""
    headers: Mapping[str, str]
    body: bytes

    @property
    def model(self) -> str:
        """The model's name as the caller wrote it, not yet checked."""
        return self.path["model"]

    @property
    def version(self) -> str:
        """Empty: the server chooses."""
        return self.path.get("version", "")


class RestCalls:
    """The calls, each answered by ``servicer``, which checks what they ask."""

    def __init__(self, servicer: pb_grpc.GRPCInferenceServiceServicer) -> None:
        # Generated base classes tell grpcio's threaded servers and the asyncio ones in one.
        self._servicer: Any = servicer

    async def server_live(self, call: RestCall) -> Response:
        """Tell whether the server reacts."""
        del call
        response = await self._servicer.ServerLive(pb.ServerLiveRequest())
        return _readiness(response.live, {"live": response.live})

    async def server_ready(self, call: RestCall) -> Response:
        """Tell whether the server can answer inferences."""
        del call
        response = await self._servicer.ServerReady(pb.ServerReadyRequest())
        return _readiness(response.ready, {"ready": response.ready})

    async def server_metadata(self, call: RestCall) -> Response:
        """Tell name, version and extensions of the server."""
        del call
        return _json(await self._servicer.ServerMetadata(pb.ServerMetadataRequest()))

    async def model_ready(self, call: RestCall) -> Response:
        """Tell whether a model can be served."""
        request = pb.ModelReadyRequest(name=call.model, version=call.version)
        response = await self._servicer.ModelReady(request)
        return _readiness(response.ready, {"name": call.model, "ready": response.ready})

    async def model_metadata(self, call: RestCall) -> Response:
        """Tell versions and tensors of a model."""
        request = pb.ModelMetadataRequest(name=call.model, version=call.version)
        return _json(await self._servicer.ModelMetadata(request))

    async def model_config(self, call: RestCall) -> Response:
        """Tell how a model is configured."""
        request = pb.ModelConfigRequest(name=call.model, version=call.version)
        return _json((await self._servicer.ModelConfig(request)).config)

    async def model_statistics(self, call: RestCall) -> Response:
        """Tell what has been counted of a model, or of all."""
        request = pb.ModelStatisticsRequest(name=call.path.get("model", ""), version=call.version)
        return _json(await self._servicer.ModelStatistics(request))

    async def infer(self, call: RestCall) -> Response:
        """Ask a model."""
        arguments = (call.model, call.version, call.body, call.headers.get(JSON_LENGTH_HEADER))
        large = len(call.body) > _LARGE_BODY
        request, forms = await asyncio.to_thread(inference_of, *arguments) if large else inference_of(*arguments)
        response = await self._servicer.ModelInfer(request)
        return await asyncio.to_thread(answer_of, response, forms) if large else answer_of(response, forms)

    async def repository_index(self, call: RestCall) -> Response:
        """List the models there are."""
        request = pb.RepositoryIndexRequest(ready=parse_request(RestIndex, call.body).ready)
        response = await self._servicer.RepositoryIndex(request)
        return JSONResponse([_as_dict(model) for model in response.models])

    async def load(self, call: RestCall) -> Response:
        """Make a model ready now."""
        request = pb.RepositoryModelLoadRequest(model_name=call.model)
        _set_parameters(request, call.body)
        await self._servicer.RepositoryModelLoad(request)
        return JSONResponse({"name": call.model, "load": True})

    async def unload(self, call: RestCall) -> Response:
        """Let go of what a model holds in memory."""
        request = pb.RepositoryModelUnloadRequest(model_name=call.model)
        _set_parameters(request, call.body)
        await self._servicer.RepositoryModelUnload(request)
        return JSONResponse({"name": call.model, "unload": True})


def _readiness(ready: bool, answer: dict[str, Any]) -> Response:
    # Clients of Triton read the status, those of KServe the answer.
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
            raise InvalidRequest("the parameters of this call are texts, true or false, and integers of 64 bits")
