"""Typed Python clients of the frontend, blocking and for asyncio.

with IntentClient("127.0.0.1:51001") as client:
    print(client.predict("clinc150", "wake me up at seven").label)
    print(client.explain("clinc150", "wake me up at seven").explanation)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from intent_serving_client.client_base import AsyncClient, BlockingClient, Client
from intent_serving_client.messages import (
    explain_request_of,
    explained_prediction_of,
    outcomes_of,
    prediction_of,
    request_of,
)
from intent_serving_client.prediction import Outcome, Prediction, Query
from intent_serving_client.stubs import prediction_service_pb2 as pb
from intent_serving_client.stubs import prediction_service_pb2_grpc as pb_grpc


class _PredictionClient(Client):
    _stub_of = pb_grpc.PredictionServiceStub
    _default_timeout_seconds = 10.0


class IntentClient(_PredictionClient, BlockingClient):
    """Blocking client of a frontend. Safe to use from several threads; close it, or use ``with``.

    Args:
        address: address of the frontend, ``host:port``.
        timeout: timeout of a call in seconds, unless the call sets its own.
        options: TLS, and the caller's certificate and credential.

    Raises:
        InvalidConnection: the files or the credential of ``options`` cannot be used.
    """

    def predict(
        self,
        model_id: str,
        document: str,
        *,
        k: int = 0,
        threshold: float | None = None,
        explain: Sequence[str] | None = None,
        key: str = "",
        timeout: float | None = None,
    ) -> Prediction:
        """Return the model's answer.

        Args:
            model_id: id of the model.
            document: text to classify.
            k: number of best labels to return.
            threshold: minimum score of an answer, from 0 to 1, in place of the one in the model's manifest.
            explain: labels to explain in addition to the best one; ``()`` explains only the best one, ``None`` none.
            key: key of a caller or a conversation, for example; calls with the same key get the same side of a canary.
            timeout: timeout of the call, in seconds.

        Raises:
            ServingError: the call failed; ``ModelNotFound``, ``InvalidRequest``, ``DeadlineExceeded`` and others from
                :mod:`serving.domain.errors`.
        """
        request = request_of(pb.PredictRequest, _query(model_id, document, k, threshold, explain)._replace(key=key))
        seconds = self._seconds(timeout)
        with self._peer.errors(seconds):
            return prediction_of(self._open_stub().Predict(request, timeout=seconds))

    def explain(
        self,
        model_id: str,
        document: str,
        labels: Sequence[str] = (),
        *,
        threshold: float | None = None,
        key: str = "",
        timeout: float | None = None,
    ) -> Prediction:
        """Return the model's answer, with the explanation of its best label and of ``labels``.

        Raises:
            ServingError: as :meth:`predict` does; ``ModelUnusable`` if the model's engine cannot explain answers.
        """
        request = explain_request_of(_query(model_id, document, 0, threshold, labels)._replace(key=key))
        seconds = self._seconds(timeout)
        with self._peer.errors(seconds):
            return explained_prediction_of(self._open_stub().Explain(request, timeout=seconds))

    def predict_batch(self, queries: Iterable[Query], *, timeout: float | None = None) -> list[Outcome]:
        """Return the outcome of each query in order: a Prediction, or the ServingError with which the query failed.

        Raises:
            ServingError: the batch as a whole was refused.
        """
        seconds = self._seconds(timeout)
        with self._peer.errors(seconds):
            return outcomes_of(self._open_stub().PredictBatch(_batch(queries), timeout=seconds))


class AsyncIntentClient(_PredictionClient, AsyncClient):
    """Asyncio version of :class:`IntentClient`. Belongs to the event loop that created it.

    Close the client, or use ``async with``.
    """

    async def predict(
        self,
        model_id: str,
        document: str,
        *,
        k: int = 0,
        threshold: float | None = None,
        explain: Sequence[str] | None = None,
        key: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - gRPC carries it to the service
    ) -> Prediction:
        """Return the model's answer, as :meth:`IntentClient.predict` does."""
        request = request_of(pb.PredictRequest, _query(model_id, document, k, threshold, explain)._replace(key=key))
        seconds = self._seconds(timeout)
        async with self._peer.async_errors(seconds):
            return prediction_of(await self._open_stub().Predict(request, timeout=seconds))

    async def explain(
        self,
        model_id: str,
        document: str,
        labels: Sequence[str] = (),
        *,
        threshold: float | None = None,
        key: str = "",
        timeout: float | None = None,  # noqa: ASYNC109 - as above
    ) -> Prediction:
        """Return the model's answer with explanations, as :meth:`IntentClient.explain` does."""
        request = explain_request_of(_query(model_id, document, 0, threshold, labels)._replace(key=key))
        seconds = self._seconds(timeout)
        async with self._peer.async_errors(seconds):
            return explained_prediction_of(await self._open_stub().Explain(request, timeout=seconds))

    async def predict_batch(self, queries: Iterable[Query], *, timeout: float | None = None) -> list[Outcome]:  # noqa: ASYNC109 - gRPC carries it to the service
        """Return the outcome of each query in order. Raises as :meth:`IntentClient.predict_batch` does."""
        seconds = self._seconds(timeout)
        async with self._peer.async_errors(seconds):
            return outcomes_of(await self._open_stub().PredictBatch(_batch(queries), timeout=seconds))


def _query(model_id: str, document: str, k: int, threshold: float | None, explain: Sequence[str] | None) -> Query:
    return Query(model_id, document, k, threshold, None if explain is None else tuple(explain))


def _batch(queries: Iterable[Query]) -> pb.PredictBatchRequest:
    return pb.PredictBatchRequest(requests=[request_of(pb.PredictRequest, query) for query in queries])
