"""Backend for our own predictor over gRPC: one server, or several that each hold a share of the models."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, Self

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from frontend.engines.backend import GroupOf, Removed
from frontend.engines.channel import channel_to
from frontend.engines.groups import predicted_in_groups
from frontend.engines.partitions import partition_of
from frontend.engines.predictor.tls import EngineTls
from frontend.engines.replicas import FRESH_SECONDS, LookUp, Replicas, look_up
from frontend.engines.submission import BatchDone, Withdraw
from frontend.engines.traced import with_span
from grpc_http2.client.channel import Channel
from intent_serving_client.messages import outcomes_of, prediction_of, request_of
from intent_serving_client.metadata import REQUEST_ID_KEY
from intent_serving_client.remote import error_of_call
from serving.access.own_credential import Entry, OwnCredential
from serving.call.call import Call
from serving.call.closing import close_in_order
from serving.domain.errors import DeadlineExceeded, ServingError, Unauthenticated, Unavailable, service_ends
from serving.domain.model_id import ModelId
from serving.domain.prediction import Outcome, Prediction, Query
from serving.domain.residency import ModelResidency
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.wire.answer_bytes import outcomes_in
from serving.wire.messages import batch_request_of
from serving.wire.residency_client import model_residency_of, statistics_of

log = structlog.get_logger()

_RETRY_SECONDS: Final = 0.5
_SERVICE: Final = pb.DESCRIPTOR.services_by_name["Predictor"].full_name
_BATCH: Final = "PredictorPredictBatch"


class _Stubs(NamedTuple):
    predictor: pb_grpc.PredictorAsyncStub
    predict_ready: Any
    """PredictorPredictBatch, whose answer is read without building a message."""
    health: Any
    """Health stub, untyped because its published types omit Watch."""

    @classmethod
    def of(cls, channel: Channel) -> Self:
        predict_ready = channel.unary_unary(
            f"/{_SERVICE}/{_BATCH}", pb.PredictorPredictBatchRequest.SerializeToString, outcomes_in
        )
        return cls(pb_grpc.PredictorStub(channel), predict_ready, health_pb2_grpc.HealthStub(channel))


class PredictorBackend:
    """A :class:`~frontend.engines.backend.Backend` that asks a predictor, or its replicas.

    Args:
        target: address of the predictor in gRPC's notation: ``host:port``, ``dns:///name:port``,
            ``ipv4:address:port,…``.
        partitions: number of partitions that the models are spread over. Queries of one partition go to one replica,
            which may serve several partitions.
        look_up: resolves names.
        tls: encryption of the connections; ``None`` for plaintext.
        credential: credential of this frontend at the predictor, closed with this backend; ``None`` if the predictor
            requires none.
        fresh_seconds: shortest time between two lookups of a name, in seconds.
    """

    def __init__(
        self,
        target: str,
        *,
        partitions: int = 1,
        look_up: LookUp = look_up,
        tls: EngineTls | None = None,
        credential: OwnCredential | None = None,
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        self._target = target
        self._credential = credential
        self._partitions = partitions
        self._tls = None if tls is None else tls.to(target)
        # Partitions in the form that the hash ring takes.
        self._affinities = [str(partition) for partition in range(partitions)]
        self._replicas = Replicas(
            target,
            lambda addresses: channel_to(addresses, _SERVICE, tls=self._tls),
            _Stubs.of,
            look_up,
            None if tls is None else tls.has_changed,
            fresh_seconds=fresh_seconds,
        )

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer to one query. Raises the predictor's error."""
        request = request_of(pb.PredictorPredictRequest, query)
        return prediction_of(await self._call("PredictorPredict", request, call, self._partition_of(query)))

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order. Each replica receives the queries for its own models.

        Raises:
            ServingError: there is one partition, and its replica refused the queries.
        """
        if self._partitions == 1:
            return await self._predict_part(queries, call)
        outcomes = await predicted_in_groups(queries, self._replica_of, lambda part: self.predict_ready(part, call))
        later = [index for index, outcome in enumerate(outcomes) if outcome is None]
        # Queries for models to be loaded are sent by partition, so that no replica loads another replica's model.
        answers = await predicted_in_groups(
            [queries[index] for index in later], self._partition_of, lambda part: self._predict_part(part, call)
        )
        waited_for = dict(zip(later, answers, strict=True))
        return [waited_for[index] if outcome is None else outcome for index, outcome in enumerate(outcomes)]

    async def predict_ready(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome | None]:
        """Return the outcome of each query that can be answered at once, ``None`` for those to be sent alone.

        REQUIRES: the key of :attr:`group_of` is the same for all queries.
        """
        partition = self._partition_of(queries[0]) if queries else 0
        batch = batch_request_of(queries, ready_only=True)
        stubs = await self._replicas.stub()
        outcomes: Sequence[Outcome | None] = await _response_of(
            self._begun(stubs.predict_ready, _BATCH, batch, call, partition)
        )
        return outcomes

    def submit_batch(self, queries: Sequence[Query], call: Call, done: BatchDone) -> Withdraw | None:
        """Submit a batch: :meth:`predict_ready` without a task, as :data:`~frontend.engines.submission.SubmitBatch`.

        A traced call has to be awaited, so that its span ends with it.

        Raises:
            DeadlineExceeded: the deadline has passed.
        """
        stubs = self._replicas.stub_at_hand()
        if stubs is None or call.span is not None:
            return None
        batch = batch_request_of(queries, ready_only=True)
        begun = self._begun(stubs.predict_ready, _BATCH, batch, call, self._partition_of(queries[0]))
        begun.add_done_callback(lambda ended: done(_outcomes_of_ended(ended)))
        withdraw: Withdraw = begun.cancel
        return withdraw

    @property
    def group_of(self) -> GroupOf | None:
        """Function that returns the address of a query's replica; ``None`` with one partition.

        The replica may leave before the batch is sent. Then the batch goes to another replica, which answers for the
        models that it has in memory, and the other queries are sent alone.
        """
        return None if self._partitions == 1 else self._replica_of

    def _replica_of(self, query: Query) -> str | int:
        partition = self._partition_of(query)
        return self._replicas.address_for(self._affinities[partition]) or partition

    async def load(self, model_id: ModelId, call: Call) -> ModelResidency:
        """Ensure that the model is in memory at the replica that answers for it. Raises the replica's error."""
        request = pb.LoadRequest(runId=model_id, caller=call.identity.name)
        response = await self._call("Load", request, call, partition_of(model_id, self._partitions))
        return model_residency_of(response.replica, response.model)

    async def residency(self, model_id: ModelId, call: Call) -> Sequence[ModelResidency]:
        """Return the model's residency at the replica that answers for it. Raises the replica's error."""
        request = pb.ResidencyRequest(runId=model_id, caller=call.identity.name)
        response = await self._call("Residency", request, call, partition_of(model_id, self._partitions))
        statistics = statistics_of(response.traffic) if response.HasField("traffic") else None
        return [model_residency_of(response.replica, next(iter(response.models), None), statistics)]

    async def unload(self, model_id: ModelId, call: Call) -> None:
        """Unload the model at the replica that answers for it. Raises the replica's error."""
        request = pb.UnloadRequest(runId=model_id, caller=call.identity.name)
        await self._call("Unload", request, call, partition_of(model_id, self._partitions))

    async def forget(self, models: Sequence[Removed], call: Call) -> None:
        """Unload removed models at every replica: one that received their calls before may still hold a copy.

        Raises:
            ServingError: the first failure.
        """
        addresses = await self._replicas.addresses()
        failures = await asyncio.gather(*(self._forget_at(address, models, call) for address in addresses))
        for failure in failures:
            if failure is not None:
                raise failure

    async def _forget_at(self, address: str, models: Sequence[Removed], call: Call) -> ServingError | None:
        """Unload models at one replica; return the first failure."""
        first: ServingError | None = None
        # The shared channel would send the calls to the replica that answers for the model.
        async with channel_to([address], tls=self._tls) as channel:
            unload = _Stubs.of(channel).predictor.Unload
            for model in models:
                request = pb.UnloadRequest(runId=model.model_id, caller=call.identity.name)
                try:
                    await _response_of(self._begun(unload, "Unload", request, call, 0))
                except ServingError as error:
                    log.info("replica keeps a removed model", address=address, model=model.model_id, reason=str(error))
                    first = first or error
                    if isinstance(error, Unavailable | DeadlineExceeded):
                        break
        return first

    async def wait_until_ready(self) -> None:
        """Return once the health of a replica is SERVING."""
        while True:
            if await self._is_serving():
                return
            # A predictor that is shutting down ends watches at once, so pause before the next attempt.
            await asyncio.sleep(_RETRY_SECONDS)

    async def _is_serving(self) -> bool:
        """Return whether a replica reports SERVING in time.

        The wait ends when the name is due to be looked up again, because it may resolve to other replicas by then.
        """
        watch: Any = None
        try:
            async with asyncio.timeout(FRESH_SECONDS):
                watch = (await self._replicas.stub()).health.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)
                async for update in watch:
                    if update.status == health_pb2.HealthCheckResponse.SERVING:
                        return True
        except TimeoutError:
            pass
        except Unavailable as error:
            log.info("predictor not ready", reason=str(error))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                # A predictor of the book's system has no health service: any answer counts as serving.
                return True
            log.info("predictor not ready", code=error.code().name)
        finally:
            if watch is not None:
                # If left open, the watch would be a call in flight when the predictor drains.
                watch.cancel()
        return False

    async def close(self) -> None:
        """Close the channels."""
        credential = () if self._credential is None else (self._credential.close,)
        await close_in_order(*credential, self._replicas.close)

    async def _predict_part(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        batch = batch_request_of(queries)
        partition = self._partition_of(queries[0]) if queries else 0
        return outcomes_of(await self._call(_BATCH, batch, call, partition))

    def _partition_of(self, query: Query) -> int:
        return partition_of(query.model_id, self._partitions)

    async def _call(self, method: str, request: Any, call: Call, partition: int) -> Any:
        stubs = await self._replicas.stub()
        return await _response_of(self._begun(getattr(stubs.predictor, method), method, request, call, partition))

    def _begun(self, send: Callable[..., Any], method: str, request: Any, call: Call, partition: int) -> Any:
        """Return the call to a replica, for the caller to await. Raises DeadlineExceeded."""
        call.deadline.check()
        metadata: tuple[Entry, ...] = ((REQUEST_ID_KEY, call.request_id),)
        if self._credential is not None:
            metadata = (*metadata, *self._credential.metadata())
        if self._partitions > 1:
            send = functools.partial(send, affinity=self._affinities[partition])
        if call.span is not None:
            send = with_span(send, call.span, f"{_SERVICE}/{method}", self._target)
        return send(request, timeout=call.deadline.remaining(), metadata=metadata)


def _outcomes_of_ended(call: Any) -> Sequence[Outcome | None] | Exception:
    """Return the outcomes, or the error, of a call that has ended."""
    try:
        outcomes: Sequence[Outcome | None] = call.result()
    except grpc.aio.AioRpcError as error:
        return _error_of(error)
    except asyncio.CancelledError:
        # The channel was closed.
        return service_ends()
    return outcomes


async def _response_of(call: Awaitable[Any]) -> Any:
    """Await a call and return its response. Raises ServingError."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _error_of(error) from error


def _error_of(failed: grpc.aio.AioRpcError) -> ServingError:
    """Return the error for the caller.

    Unauthenticated becomes Unavailable: it is this frontend that the predictor does not know, not the caller.
    """
    error = error_of_call(failed, "predictor")
    if not isinstance(error, Unauthenticated):
        return error
    refusal = Unavailable("the engine does not know this frontend; the operator has to give the frontend a credential")
    refusal.tried_enough = True
    return refusal
