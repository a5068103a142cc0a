"""Servicer of prediction.Predictor: translates between protobuf and the inference engine, and does nothing else."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from predictor.inference.engine import Check, InferenceEngine
from predictor.inference.permissions import Permissions
from predictor.rpc.residency_messages import residency_response, resident_message
from predictor.rpc.traffic_messages import traffic_message, traffic_response
from serving.access.audit import audited
from serving.call.call import Call, current_call, note_model
from serving.call.identity import ANYBODY, Identity, Requirement, Right
from serving.domain.errors import ServingError
from serving.domain.prediction import Query
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.transport.guards import Access, OpenAccess
from serving.transport.served_call import ServedCall
from serving.transport.service import Service, service
from serving.wire.answer_bytes import answer_bytes, batch_answer_bytes
from serving.wire.messages import LARGE_BATCH, delegated_query_of, predictor_batch_response_of, response_of

NAME = pb.DESCRIPTOR.services_by_name["Predictor"].full_name

# Identifies the process: a frontend learns from this which models are here and may be queried together.
REPLICA: Final = os.urandom(8).hex()
"""Name of this process."""

# A query states whether it needs an explanation, and on whose behalf it is made, so each query is checked separately.
_TO_PREDICT: Final = (Right.PREDICT, Right.EXPLAIN, Right.DELEGATE)
_TO_MANAGE: Final = (Right.MANAGE, Right.DELEGATE)

_RIGHTS: Final[dict[str, Requirement]] = {
    "PredictorPredict": _TO_PREDICT,
    "PredictorPredictBatch": _TO_PREDICT,
    "Load": _TO_MANAGE,
    "Unload": _TO_MANAGE,
    "Residency": (Right.MANAGE, Right.PREDICT, Right.DELEGATE),
    "Traffic": _TO_MANAGE,
}


class PredictorServicer:
    """Passes requests to the inference engine.

    Args:
        engine: answers the queries.
        access: knows the callers on whose behalf frontends make calls.
    """

    def __init__(self, engine: InferenceEngine, access: Access) -> None:
        self._engine = engine
        self._access = access

    def PredictorPredict(self, request: pb.PredictorPredictRequest, served: ServedCall) -> None:
        """Classify one document."""
        query = served.query = delegated_query_of(request)
        (outcome,) = self._engine.predict_now((query,), served, self._check(served))
        if outcome is None:
            served.run(self._predict_later(query, served))
        elif isinstance(outcome, ServingError):
            served.fail(outcome)
        else:
            served.answer = outcome
            served.send(answer_bytes(outcome))

    async def _predict_later(self, query: Query, call: Call) -> pb.PredictorPredictResponse:
        call.notes.answer = answer = await self._engine.predict(query, call.deadline, self._check(call))
        return response_of(pb.PredictorPredictResponse, answer)

    def PredictorPredictBatch(self, request: pb.PredictorPredictBatchRequest, served: ServedCall) -> None:
        """Classify many documents, each independently of the others."""
        queries = served.queries = [delegated_query_of(item) for item in request.requests]
        if not request.ready_only or len(queries) > LARGE_BATCH:
            served.run(self._predict_batch(queries, served, ready_only=request.ready_only))
            return
        outcomes = self._engine.predict_now(queries, served, self._check(served))
        if queries and not any(outcomes):
            # Wait here for long work of models that are ready: separate calls for it would cost a second round trip,
            # and the frontend would not learn how much it may admit.
            served.run(self._predict_batch(queries, served, ready_only=True))
            return
        served.outcomes = outcomes
        served.send(batch_answer_bytes(outcomes, REPLICA))

    async def _predict_batch(
        self, queries: Sequence[Query], call: Call, *, ready_only: bool
    ) -> pb.PredictorPredictBatchResponse:
        answer = self._engine.predict_ready if ready_only else self._engine.predict_batch
        call.notes.outcomes = outcomes = await answer(queries, call.deadline, self._check(call))
        # Thousands of answers take a while to serialize, so a thread does this while the event loop continues.
        response = (
            await asyncio.to_thread(predictor_batch_response_of, outcomes)
            if len(outcomes) > LARGE_BATCH
            else predictor_batch_response_of(outcomes)
        )
        response.replica = REPLICA
        return response

    async def Residency(self, request: pb.ResidencyRequest, _call: Call) -> pb.ResidencyResponse:
        """List the models in memory."""
        note_model(request.runId)
        may_see = self._may_see(request.runId, request.caller)
        response = residency_response(self._engine.residency(), request.runId, request.limit, may_see)
        response.replica = REPLICA
        for counted in self._engine.traffic().listed(request.runId, 1) if request.runId else ():
            response.traffic.CopyFrom(traffic_message(counted, time.monotonic()))
        return response

    async def Load(self, request: pb.LoadRequest, call: Call) -> pb.LoadResponse:
        """Load a model, unless it is in memory."""
        note_model(request.runId)
        residents = self._engine.residency()
        with audited("load", request.runId, request.caller):
            self._may_manage(request.runId, request.caller)
            lease = await self._engine.load(request.runId, call.deadline)
        with lease:
            message = resident_message(lease.resident, residents, time.monotonic())
        return pb.LoadResponse(model=message, replica=REPLICA)

    async def Unload(self, request: pb.UnloadRequest, _call: Call) -> pb.UnloadResponse:
        """Unload a model."""
        note_model(request.runId)
        with audited("unload", request.runId, request.caller):
            self._may_manage(request.runId, request.caller)
            return pb.UnloadResponse(was_resident=self._engine.unload(request.runId))

    async def Traffic(self, request: pb.TrafficRequest, _call: Call) -> pb.TrafficResponse:
        """List the traffic counts of models."""
        note_model(request.runId)
        may_see = self._may_manage(request.runId)
        listed = self._engine.traffic().listed(request.runId, request.limit, may_see)
        return await asyncio.to_thread(traffic_response, listed) if len(listed) > 1 else traffic_response(listed)

    def _check(self, call: Call) -> Check | None:
        """Return the check of each query; ``None`` if every caller may do everything."""
        identity = call.identity
        return None if identity is ANYBODY else Permissions(self._access, identity).check

    def _may_see(self, model_id: str, caller: str) -> Callable[[str], bool] | None:
        """Return the filter of :meth:`_may_manage`, but also let a caller that may query a named model see that model.

        Such a caller may know whether the model is in memory.
        """
        identity = self._identity_of(caller)
        if model_id and Right.PREDICT in identity.rights:
            identity.check_model(model_id)
            return identity.may_use
        return self._may_manage(model_id, caller)

    def _may_manage(self, model_id: str, caller: str = "") -> Callable[[str], bool] | None:
        """Return a filter of the models that may be managed; ``None``: all. An empty ``model_id`` names no model.

        Raises:
            PermissionDenied: the caller may not manage the named model, or may manage nothing.
        """
        identity = self._identity_of(caller)
        if identity is ANYBODY:
            return None
        identity.check_right(Right.MANAGE)
        if model_id:
            identity.check_model(model_id)
        return identity.may_use

    def _identity_of(self, caller: str) -> Identity:
        """Return the identity on whose behalf the call is made. Raises PermissionDenied."""
        identity = current_call().identity
        return identity if identity is ANYBODY else Permissions(self._access, identity).identity_of(caller)


def predictor_service(engine: InferenceEngine, access: Access | None = None) -> Service:
    """Return the service for a host.

    Args:
        engine: answers the queries.
        access: access control that the host's guards use; without it, callers need no credential.
    """
    servicer = PredictorServicer(engine, access or OpenAccess())
    return service(NAME, pb_grpc.add_PredictorServicer_to_server, servicer, _RIGHTS)
