"""Calls to a server of the Open Inference Protocol, or to its replicas, and the errors of calls that fail."""

from __future__ import annotations

import asyncio
import functools
from typing import Any, Final

import grpc
import structlog

from frontend.engines.channel import channel_to
from frontend.engines.open_inference.misfit import misfit_of
from frontend.engines.open_inference.refusals import error_of_refusal, is_unknown_model, refuses_request
from frontend.engines.partitions import partition_of
from frontend.engines.replicas import FRESH_SECONDS, LookUp, Replicas
from frontend.engines.traced import with_span
from intent_serving_client.metadata import REQUEST_ID_KEY
from serving.call.call import Call
from serving.domain.errors import ModelIncomplete, ServingError, Unavailable
from serving.domain.manifest import OpenInferenceModel
from serving.stubs import open_inference_pb2 as pb
from serving.stubs import open_inference_pb2_grpc as pb_grpc

log = structlog.get_logger()

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Timeout of the call that finds out the cause of a refusal, from a server that has just answered.
_PATIENCE_SECONDS: Final = 1.0


class OpenInferenceServer:
    """Client of a server, or of its replicas that each serve a share of the models.

    Args:
        target: address of the server, in gRPC's notation.
        partitions: number of partitions that the models are spread over; the models of one go to one replica.
        look_up: resolves names.
    """

    def __init__(self, target: str, partitions: int, look_up: LookUp) -> None:
        self._target = target
        self._partitions = partitions
        self._replicas: Replicas[pb_grpc.GRPCInferenceServiceAsyncStub] = Replicas(
            target,
            functools.partial(channel_to, service=_SERVICE, pings=False),
            pb_grpc.GRPCInferenceServiceStub,
            look_up,
        )

    async def infer(
        self, request: pb.ModelInferRequest, model_id: str, model: OpenInferenceModel, call: Call
    ) -> pb.ModelInferResponse:
        """Return the answer to ``request``, which is for ``model``, whose id here is ``model_id``.

        Raises:
            ModelIncomplete: the engine has no such model.
            InvalidManifest: the model's tensors are not those of the manifest.
            ServingError: the call failed for another reason; the message is ours.
        """
        call.deadline.check()
        affinity = str(partition_of(model_id, self._partitions))
        metadata = ((REQUEST_ID_KEY, call.request_id),)
        method: Any = (await self._replicas.stub()).ModelInfer
        send: Any = functools.partial(method, affinity=affinity)
        if call.span is not None:
            send = with_span(send, call.span, f"{_SERVICE}/ModelInfer", self._target)
        try:
            response: pb.ModelInferResponse = await send(request, timeout=call.deadline.remaining(), metadata=metadata)
            return response
        except grpc.aio.AioRpcError as error:
            options = {
                "timeout": min(call.deadline.remaining(), _PATIENCE_SECONDS),
                "metadata": metadata,
                "affinity": affinity,
            }
            if is_unknown_model(error):
                raise await self._unknown_model(options) from error
            if refuses_request(error):
                raise await self._misfit(request, model, options) or error_of_refusal(error) from error
            raise error_of_refusal(error) from error

    async def becomes_ready(self) -> bool:
        """Return whether the server reports in time that it is ready.

        The wait ends when the name is due to be looked up again, because it may resolve to other servers by then.
        """
        try:
            async with asyncio.timeout(FRESH_SECONDS):
                if await self._is_ready({"wait_for_ready": True}):
                    return True
            log.info("engine not ready")
        except TimeoutError:
            pass
        except Unavailable as error:
            log.info("engine not ready", reason=str(error))
        except grpc.aio.AioRpcError as error:
            log.info("engine not ready", code=error.code().name)
        return False

    async def close(self) -> None:
        """Close the channels."""
        await self._replicas.close()

    async def _unknown_model(self, options: dict[str, Any]) -> ServingError:
        """Return the error for an unknown model: a server that starts or stops reports every model as unknown."""
        try:
            ready = await self._is_ready(options)
        except grpc.aio.AioRpcError:
            ready = False
        if not ready:
            return Unavailable("the engine is not ready, and does not have the model; try again")
        return ModelIncomplete(
            "the engine has no model of this name and version; deploy the model there, or correct "
            "OpenInference in manifest.json"
        )

    async def _misfit(
        self, request: pb.ModelInferRequest, model: OpenInferenceModel, options: dict[str, Any]
    ) -> ServingError | None:
        """Return the error if the manifest caused the refusal and the server's metadata shows it, else ``None``."""
        question = pb.ModelMetadataRequest(name=request.model_name, version=request.model_version)
        try:
            metadata = await (await self._replicas.stub()).ModelMetadata(question, **options)
        except grpc.aio.AioRpcError:
            return None
        return misfit_of(model, metadata)

    async def _is_ready(self, options: dict[str, Any]) -> bool:
        try:
            return (await (await self._replicas.stub()).ServerReady(pb.ServerReadyRequest(), **options)).ready
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                # Without this method, any answer counts as ready.
                return True
            raise
