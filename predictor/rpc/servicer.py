"""prediction.Predictor: protobuf in, protobuf out, nothing else."""

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
from serving.call.identity import ANYBODY, Asked, Identity, Right
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

# Tells processes apart: a frontend learns from it which models are here, and may be asked for together.
REPLICA: Final = os.urandom(8).hex()
"""The name of this process."""

# Queries say whether they want to be explained, and in whose name: each is checked on its own.
_TO_ASK: Final = (Right.PREDICT, Right.EXPLAIN, Right.DELEGATE)
_TO_MANAGE: Final = (Right.MANAGE, Right.DELEGATE)

_RIGHTS: Final[dict[str, Asked]] = {
    "PredictorPredict": _TO_ASK,
    "PredictorPredictBatch": _TO_ASK,
    "Load": _TO_MANAGE,
    "Unload": _TO_MANAGE,
    "Residency": (Right.MANAGE, Right.PREDICT, Right.DELEGATE),
    "Traffic": _TO_MANAGE,
}


class PredictorServicer:
    """Hands requests to the inference engine.

    Args:
        engine: answers.
        access: knows those in whose names frontends ask.
    """

    def __init__(self, engine: InferenceEngine, access: Access) -> None:
        self._engine = engine
        self._access = access

    def PredictorPredict(  # noqa: N802 - the contract names it
        self, request: pb.PredictorPredictRequest, served: ServedCall
    ) -> None:
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

    def PredictorPredictBatch(  # noqa: N802 - the contract names it
        self, request: pb.PredictorPredictBatchRequest, served: ServedCall
    ) -> None:
        """Classify many documents, each on its own."""
        queries = served.queries = [delegated_query_of(item) for item in request.requests]
        if not request.ready_only or len(queries) > LARGE_BATCH:
            served.run(self._predict_batch(queries, served, ready_only=request.ready_only))
            return
        outcomes = self._engine.predict_now(queries, served, self._check(served))
        if queries and not any(outcomes):
            # Long work of models that are ready is waited for here: asked for alone it would cost a second trip, and
            # the frontend would not learn how much it may let in.
            served.run(self._predict_batch(queries, served, ready_only=True))
            return
        served.outcomes = outcomes
        served.send(batch_answer_bytes(outcomes, REPLICA))

    async def _predict_batch(
        self, queries: Sequence[Query], call: Call, *, ready_only: bool
    ) -> pb.PredictorPredictBatchResponse:
        answer = self._engine.predict_ready if ready_only else self._engine.predict_batch
        call.notes.outcomes = outcomes = await answer(queries, call.deadline, self._check(call))
        # Thousands of answers take a while to write: the event loop goes on meanwhile.
        response = (
            await asyncio.to_thread(predictor_batch_response_of, outcomes)
            if len(outcomes) > LARGE_BATCH
            else predictor_batch_response_of(outcomes)
        )
        response.replica = REPLICA
        return response

    async def Residency(  # noqa: N802 - the contract names it
        self, request: pb.ResidencyRequest, call: Call
    ) -> pb.ResidencyResponse:
        """List the models in memory."""
        del call
        note_model(request.runId)
        may_see = self._may_see(request.runId, request.caller)
        response = residency_response(self._engine.residency(), request.runId, request.limit, may_see)
        response.replica = REPLICA
        for counted in self._engine.traffic().listed(request.runId, 1) if request.runId else ():
            response.traffic.CopyFrom(traffic_message(counted, time.monotonic()))
        return response

    async def Load(  # noqa: N802 - the contract names it
        self, request: pb.LoadRequest, call: Call
    ) -> pb.LoadResponse:
        """Have a model in memory."""
        del call
        note_model(request.runId)
        residents = self._engine.residency()
        with audited("load", request.runId, request.caller):
            self._may_manage(request.runId, request.caller)
            lease = await self._engine.load(request.runId)
        with lease:
            message = resident_message(lease.resident, residents, time.monotonic())
        return pb.LoadResponse(model=message, replica=REPLICA)

    async def Unload(  # noqa: N802 - the contract names it
        self, request: pb.UnloadRequest, call: Call
    ) -> pb.UnloadResponse:
        """Let go of a model."""
        del call
        note_model(request.runId)
        with audited("unload", request.runId, request.caller):
            self._may_manage(request.runId, request.caller)
            return pb.UnloadResponse(was_resident=self._engine.unload(request.runId))

    async def Traffic(  # noqa: N802 - the contract names it
        self, request: pb.TrafficRequest, call: Call
    ) -> pb.TrafficResponse:
        """List what models were asked and what they answered."""
        del call
        note_model(request.runId)
        may_see = self._may_manage(request.runId)
        listed = self._engine.traffic().listed(request.runId, request.limit, may_see)
        return await asyncio.to_thread(traffic_response, listed) if len(listed) > 1 else traffic_response(listed)

    def _check(self, call: Call) -> Check | None:
        """Return what checks each query; ``None`` where everybody may do everything."""
        identity = call.identity
        return None if identity is ANYBODY else Permissions(self._access, identity).check

    def _may_see(self, model_id: str, caller: str) -> Callable[[str], bool] | None:
        """Return as :meth:`_may_manage` does. Of one model, who may ask it may know whether it is in memory."""
        identity = self._identity_of(caller)
        if model_id and Right.PREDICT in identity.rights:
            identity.check_model(model_id)
            return identity.may_use
        return self._may_manage(model_id, caller)

    def _may_manage(self, model_id: str, caller: str = "") -> Callable[[str], bool] | None:
        """Return what tells which models may be managed, ``None`` for all. An empty ``model_id`` names none.

        Raises:
            PermissionDenied: the one that is named may not be managed, or the caller may manage nothing.
        """
        identity = self._identity_of(caller)
        if identity is ANYBODY:
            return None
        identity.check_right(Right.MANAGE)
        if model_id:
            identity.check_model(model_id)
        return identity.may_use

    def _identity_of(self, caller: str) -> Identity:
        """Return in whose name the call is made. Raises PermissionDenied."""
        identity = current_call().identity
        return identity if identity is ANYBODY else Permissions(self._access, identity).identity_of(caller)


def predictor_service(engine: InferenceEngine, access: Access | None = None) -> Service:
    """Return the service for a host.

    Args:
        engine: answers.
        access: what its guards ask; nobody is asked who they are where there is none.
    """
    servicer = PredictorServicer(engine, access or OpenAccess())
    return service(NAME, pb_grpc.add_PredictorServicer_to_server, servicer, _RIGHTS)
