"""Servicer of prediction.ModelService: conversion from and to protobuf, nothing else."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final, TypeAlias

import grpc

from frontend.management.deletion import Deletions
from frontend.management.description import Descriptions, ReleaseStates
from frontend.management.listing import Filter, Listing
from frontend.management.releases import Releases
from frontend.management.residency import EngineResidency
from frontend.management.volume import Volume
from frontend.management.watching import ModelWatch
from serving.access.audit import audited
from serving.call.call import current_call, note_model
from serving.call.identity import Right
from serving.domain.errors import InvalidRequest
from serving.domain.model_id import ModelId, parse_model_id, parse_model_name
from serving.domain.releases.changes import promoted, rolled_back, withdrawn
from serving.domain.releases.views import view_of
from serving.stubs import model_service_pb2 as pb
from serving.stubs import model_service_pb2_grpc as pb_grpc
from serving.transport.service import Service, service
from serving.volume.planning import Transition
from serving.wire.management_messages import (
    description_message,
    model_residency_message,
    page_message,
    role_of,
    state_message,
    watched_message,
)

NAME: Final = pb.DESCRIPTOR.services_by_name["ModelService"].full_name

_RIGHTS: Final = {
    "ListModels": Right.PREDICT,
    "DescribeModel": Right.PREDICT,
    "LoadModel": Right.MANAGE,
    "UnloadModel": Right.MANAGE,
    "DeleteModel": Right.MANAGE,
    "WatchModels": Right.PREDICT,
    "GetRelease": Right.PREDICT,
    "Release": Right.MANAGE,
    "Promote": Right.MANAGE,
    "Rollback": Right.MANAGE,
    "Withdraw": Right.MANAGE,
}

Context = grpc.aio.ServicerContext[Any, Any]
_Change: TypeAlias = pb.ReleaseRequest | pb.PromoteRequest | pb.RollbackRequest | pb.WithdrawRequest


class ModelServicer(pb_grpc.ModelServiceServicer):
    """Servicer that passes requests on.

    Args:
        volume: resolves the requested models.
        listing: lists models.
        descriptions: describes models.
        residency: loads and unloads models.
        deletions: deletes models.
        states: returns releases.
        releases: changes releases.
        watch: reports changes.
    """

    def __init__(
        self,
        *,
        volume: Volume,
        listing: Listing,
        descriptions: Descriptions,
        residency: EngineResidency,
        deletions: Deletions,
        states: ReleaseStates,
        releases: Releases,
        watch: ModelWatch,
    ) -> None:
        self._volume = volume
        self._listing = listing
        self._descriptions = descriptions
        self._residency = residency
        self._deletions = deletions
        self._states = states
        self._releases = releases
        self._watch = watch

    async def ListModels(self, request: pb.ListModelsRequest, _context: Context) -> pb.ListModelsResponse:
        """List the models that the caller may use."""
        released_only = request.released if request.HasField("released") else None
        wanted = Filter(request.prefix, request.algorithm, released_only)
        return page_message(await self._listing.page(wanted, request.page_size, request.page_token, _may_see()))

    async def DescribeModel(self, request: pb.DescribeModelRequest, _context: Context) -> pb.ModelDescription:
        """Describe one model."""
        _check(Right.PREDICT, request.runId)
        return description_message(await self._descriptions.of(request.runId, current_call()))

    async def LoadModel(self, request: pb.LoadModelRequest, _context: Context) -> pb.LoadModelResponse:
        """Load a model into memory."""
        with audited("load", request.runId):
            _check(Right.MANAGE, request.runId)
            residency = await self._residency.load(await self._volume.resolved(request.runId), current_call())
        return pb.LoadModelResponse(residence=None if residency is None else model_residency_message(residency))

    async def UnloadModel(self, request: pb.UnloadModelRequest, _context: Context) -> pb.UnloadModelResponse:
        """Unload a model from memory."""
        with audited("unload", request.runId):
            _check(Right.MANAGE, request.runId)
            await self._residency.unload(await self._volume.resolved(request.runId), current_call())
        return pb.UnloadModelResponse()

    async def DeleteModel(self, request: pb.DeleteModelRequest, _context: Context) -> pb.DeleteModelResponse:
        """Delete a model or a version from the volume."""
        with audited("delete", request.runId):
            _check(Right.MANAGE, request.runId)
            await self._deletions.delete(request.runId, current_call(), force=request.force)
        return pb.DeleteModelResponse()

    async def WatchModels(self, request: pb.WatchModelsRequest, _context: Context) -> AsyncIterator[pb.ModelChange]:
        """Stream changes of the models that the caller may use."""
        async with aclosing(self._watch.changes(request.prefix, _may_see(), initial=request.initial)) as changes:
            async for change in changes:
                yield watched_message(change)

    async def GetRelease(self, request: pb.GetReleaseRequest, _context: Context) -> pb.ReleaseState:
        """Return the release of a name."""
        name = parse_model_name(request.name)
        _check(Right.PREDICT, name)
        return state_message(await self._states.of(name), request.history)

    async def Release(self, request: pb.ReleaseRequest, _context: Context) -> pb.ReleaseState:
        """Make a version live."""
        return await self._changed("release", request, self._release_of)

    async def Promote(self, request: pb.PromoteRequest, _context: Context) -> pb.ReleaseState:
        """Make the canary stable."""
        return await self._changed("promote", request, lambda _: promoted)

    async def Rollback(self, request: pb.RollbackRequest, _context: Context) -> pb.ReleaseState:
        """Make a former stable version stable again."""
        version = request.version
        return await self._changed("rollback", request, lambda _: functools.partial(rolled_back, version=version))

    async def Withdraw(self, request: pb.WithdrawRequest, _context: Context) -> pb.ReleaseState:
        """End a canary or a shadow, or remove a label."""
        return await self._changed("withdraw", request, lambda _: _withdrawal_of(request), tries=False)

    async def _changed(
        self, action: str, request: _Change, transition_of: Any, *, tries: bool = True
    ) -> pb.ReleaseState:
        with audited(action, request.name):
            name = parse_model_name(request.name)
            _check(Right.MANAGE, name)
            release = await self._releases.change(
                name,
                transition_of(request),
                current_call(),
                expected_revision=request.expected_revision if request.HasField("expected_revision") else None,
                comment=request.comment,
                tries=tries,
            )
        return state_message(self._states.with_trials(name, view_of(release)), history=1)

    def _release_of(self, request: pb.ReleaseRequest) -> Transition:
        """Return the transition that a request asks for. Raises InvalidRequest if its fields contradict each other."""
        role = "stable" if request.role == pb.RELEASE_ROLE_UNSPECIFIED else role_of(request.role)
        if role is None:
            raise InvalidRequest("role must be STABLE, CANARY, SHADOW or LABEL")
        share = request.share if request.HasField("share") else None
        if share is not None and role not in ("canary", "shadow"):
            raise InvalidRequest("a share belongs to CANARY or SHADOW; omit the share, or set the role")
        if request.HasField("bounds") and role != "canary":
            raise InvalidRequest("bounds belong to CANARY; omit the bounds, or set the role")
        if bool(request.label) != (role == "label"):
            raise InvalidRequest("a label and the role LABEL belong together; set both or none")
        bounds = {field.name: value for field, value in request.bounds.ListFields()}
        return self._releases.releasing(
            ModelId(request.name), request.version, role, request.label, share=share, bounds=bounds
        )


def _withdrawal_of(request: pb.WithdrawRequest) -> Transition:
    role = role_of(request.role)
    if role is None or role == "stable":
        raise InvalidRequest("role must be CANARY, SHADOW or LABEL")
    if bool(request.label) != (role == "label"):
        raise InvalidRequest("a label and the role LABEL belong together; set both or none")
    return functools.partial(withdrawn, role=role, label=request.label)


def _may_see() -> Callable[[str], bool]:
    """Return the predicate for models that the caller may see. Raises PermissionDenied if the caller may see none."""
    identity = current_call().identity
    identity.check_right(Right.PREDICT)
    return identity.may_use


def _check(right: Right, run_id: str) -> None:
    """Check that the caller has the right to this model. Raises InvalidModelId, PermissionDenied."""
    model_id = parse_model_id(run_id)
    note_model(model_id)
    current_call().identity.check(right, model_id)


def model_service(servicer: ModelServicer) -> Service:
    """Return the service for a host."""
    return service(NAME, pb_grpc.add_ModelServiceServicer_to_server, servicer, _RIGHTS)
