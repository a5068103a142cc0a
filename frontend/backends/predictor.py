"""Our own predictor, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.call import REQUEST_ID_KEY, Call
from serving.messages import batch_request_of, outcomes_of, prediction_of, ready_outcomes_of, request_of
from serving.prediction import Outcome, Prediction, Query
from serving.remote import error_of_call
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc

log = structlog.get_logger()

_ASK_AGAIN_SECONDS: Final = 0.5
_MAX_ANSWER_BYTES: Final = 64 << 20
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    # A predictor that comes back is found within a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A predictor that hangs, or a network that drops packets, is noticed while calls wait.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_retries", 0),
    # Proxies of the environment are for the web, not for a service beside this one.
    ("grpc.enable_http_proxy", 0),
)


class PredictorBackend:
    """A :class:`~frontend.backends.backend.Backend` that asks a predictor.

    Args:
        target: where it listens, as gRPC writes it: ``host:port`` or ``dns:///name:port``.
    """

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._stub = pb_grpc.PredictorStub(self._channel)
        # The published types of the health stub leave Watch out.
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    async def predict(self, query: Query, call: Call) -> Prediction:
        """Return the model's answer to one query. Raises the predictor's error."""
        request = request_of(pb.PredictorPredictRequest, query)
        return prediction_of(await self._ask(self._stub.PredictorPredict, request, call))

    async def predict_batch(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome]:
        """Return the outcome of each query, in order. Raises the predictor's error where it refused the batch."""
        batch = batch_request_of(queries)
        return outcomes_of(await self._ask(self._stub.PredictorPredictBatch, batch, call))

    async def predict_ready(self, queries: Sequence[Query], call: Call) -> Sequence[Outcome | None]:
        """Return the outcome of each query that can be answered at once, ``None`` for those to be asked alone."""
        batch = batch_request_of(queries, ready_only=True)
        return ready_outcomes_of(await self._ask(self._stub.PredictorPredictBatch, batch, call))

    async def wait_until_ready(self) -> None:
        """Return once the predictor's health is SERVING."""
        request = health_pb2.HealthCheckRequest()
        while True:
            watch = self._health.Watch(request, wait_for_ready=True)
            try:
                async for update in watch:
                    if update.status == health_pb2.HealthCheckResponse.SERVING:
                        return
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    # A predictor of the book's system has no health service: that it answers is all there is to know.
                    return
                log.info("predictor not ready", code=error.code().name)
            finally:
                # Left open, it would be a call in flight when the predictor drains.
                watch.cancel()
            # A predictor that is ending ends watches at once: ask again, but not without a break.
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _ask(self, method: Any, request: Any, call: Call) -> Any:
        call.deadline.check()
        try:
            return await method(
                request, timeout=call.deadline.remaining(), metadata=((REQUEST_ID_KEY, call.request_id),)
            )
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error, "predictor") from error
