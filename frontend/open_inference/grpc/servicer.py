"""Servicer of inference.GRPCInferenceService: conversion from and to protobuf, nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeVar

import grpc

from frontend.open_inference.descriptions import EXTENSIONS, SERVER
from frontend.open_inference.grpc.description_messages import config_of, index_of, metadata_of, statistics_of
from frontend.open_inference.grpc.messages import inference_request_of, inference_response_of, is_raw
from frontend.open_inference.inference import Inferences
from frontend.open_inference.models import NamedModels
from frontend.open_inference.repository import ModelRepository
from frontend.open_inference.statistics import InferenceStatistics
from intent_serving_client.version import VERSION
from serving.access.audit import audited
from serving.call.call import current_call, note_model
from serving.call.identity import ANYBODY, Right
from serving.domain.errors import InvalidRequest
from serving.stubs import open_inference_pb2 as pb
from serving.stubs import open_inference_pb2_grpc as pb_grpc
from serving.transport.service import Service, service
from serving.wire.messages import LARGE_BATCH

NAME: Final = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

_RIGHTS: Final = dict.fromkeys(
    (method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods), Right.PREDICT
) | {"RepositoryModelLoad": Right.MANAGE, "RepositoryModelUnload": Right.MANAGE}

Context = grpc.aio.ServicerContext[Any, Any]
Message = TypeVar("Message")


class OpenInferenceServicer(pb_grpc.GRPCInferenceServiceServicer):
    """Servicer that passes requests on. No method needs the context, so that other transports can call it too.

    Args:
        inferences: answers inferences.
        models: finds models.
        repository: lists, loads and unloads models.
        statistics: counts of requests by model.
        max_documents: maximum number of documents in one request.
        is_ready: whether the frontend can answer.
    """

    def __init__(
        self,
        inferences: Inferences,
        models: NamedModels,
        repository: ModelRepository,
        statistics: InferenceStatistics,
        *,
        max_documents: int,
        is_ready: Callable[[], bool],
    ) -> None:
        self._inferences = inferences
        self._models = models
        self._repository = repository
        self._statistics = statistics
        self._max_documents = max_documents
        self._is_ready = is_ready

    async def ServerLive(
        self, _request: pb.ServerLiveRequest, _context: Context | None = None
    ) -> pb.ServerLiveResponse:
        """Report that the server is alive."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(
        self, _request: pb.ServerReadyRequest, _context: Context | None = None
    ) -> pb.ServerReadyResponse:
        """Return whether the frontend can answer."""
        return pb.ServerReadyResponse(ready=self._is_ready())

    async def ModelReady(self, request: pb.ModelReadyRequest, _context: Context | None = None) -> pb.ModelReadyResponse:
        """Return whether a model exists and has an engine."""
        _check_model(request.name)
        return pb.ModelReadyResponse(ready=await self._models.is_ready(request.name, request.version))

    async def ServerMetadata(
        self, _request: pb.ServerMetadataRequest, _context: Context | None = None
    ) -> pb.ServerMetadataResponse:
        """Return name, version and extensions of the server."""
        return pb.ServerMetadataResponse(name=SERVER, version=VERSION, extensions=EXTENSIONS)

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, _context: Context | None = None
    ) -> pb.ModelMetadataResponse:
        """Return versions and tensors of a model."""
        _check_model(request.name)
        model = await self._models.find(request.name, request.version)
        return metadata_of(model, await self._repository.versions(model))

    async def ModelInfer(self, request: pb.ModelInferRequest, _context: Context | None = None) -> pb.ModelInferResponse:
        """Classify one document or many, all for one model."""
        # Checked before the model is looked up: a caller that may not use the model must learn nothing about it.
        _check_model(request.model_name)
        answer = await self._inferences.infer(inference_request_of(request), current_call())
        rows = answer.outputs[0].shape[0]
        return await _made(
            lambda: inference_response_of(answer, request.id, raw=is_raw(request)), large=rows > LARGE_BATCH
        )

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, _context: Context | None = None
    ) -> pb.ModelConfigResponse:
        """Return the configuration of a model, as Triton would."""
        _check_model(request.name)
        return config_of(await self._models.find(request.name, request.version), self._max_documents)

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, _context: Context | None = None
    ) -> pb.ModelStatisticsResponse:
        """Return the statistics of one model, or of all models that were queried."""
        if request.name:
            _check_model(request.name)
            model = await self._models.find(request.name, request.version)
            return statistics_of([self._statistics.of(model)] if request.version else self._statistics.of_each(model))
        may_see = _may_see()
        counts = [each for each in self._statistics.of_all() if may_see is None or may_see(each.model)]
        return await _made(lambda: statistics_of(counts), large=len(counts) > LARGE_BATCH)

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, _context: Context | None = None
    ) -> pb.RepositoryIndexResponse:
        """Return the index of the models."""
        models = await self._repository.index(ready_only=request.ready, may_see=_may_see())
        return await _made(lambda: index_of(models), large=len(models) > LARGE_BATCH)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, _context: Context | None = None
    ) -> pb.RepositoryModelLoadResponse:
        """Load a model into memory."""
        if any(name == "config" or name.startswith("file:") for name in request.parameters):
            raise InvalidRequest("a model is served as it was published; load it without a configuration or files")
        name = request.model_name or request.repository_name
        note_model(name)
        with audited("load", name):
            await self._repository.load(name, current_call())
        return pb.RepositoryModelLoadResponse(model_name=name, is_loaded=True)

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, _context: Context | None = None
    ) -> pb.RepositoryModelUnloadResponse:
        """Unload a model from memory."""
        name = request.model_name or request.repository_name
        note_model(name)
        with audited("unload", name):
            await self._repository.unload(name, current_call())
        return pb.RepositoryModelUnloadResponse(model_name=name, is_unloaded=True)

    def close(self) -> None:
        """Release the threads."""
        self._repository.close()


def open_inference_service(servicer: OpenInferenceServicer) -> Service:
    """Return the service for a host."""
    return service(NAME, pb_grpc.add_GRPCInferenceServiceServicer_to_server, servicer, _RIGHTS)


def _check_model(name: str) -> None:
    """Note the requested model, and check that the caller may use it. Raises PermissionDenied."""
    note_model(name)
    identity = current_call().identity
    if identity is not ANYBODY:
        identity.check_model(name)


def _may_see() -> Callable[[str], bool] | None:
    """Return the predicate for models that the caller may use; ``None``: all."""
    identity = current_call().identity
    return None if identity is ANYBODY else identity.may_use


async def _made(message: Callable[[], Message], *, large: bool) -> Message:
    # Thousands of rows take a while to build; a thread keeps the event loop free.
    return await asyncio.to_thread(message) if large else message()
