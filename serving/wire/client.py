"""Typed Python clients of the frontend, blocking and for asyncio.

with IntentClient("127.0.0.1:51001") as client:
    print(client.predict("clinc150", "wake me up at seven").label)
    print(client.explain("clinc150", "wake me up at seven").explanation)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Final, Self

import grpc

from serving.domain.prediction import Outcome, Prediction, Query
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.wire.channels import PLAIN, ChannelOptions, open_async_channel, open_channel
from serving.wire.messages import explain_request_of, explained_prediction_of, outcomes_of, prediction_of, request_of
from serving.wire.remote import error_of_call

DEFAULT_ADDRESS: Final = "127.0.0.1:51001"
DEFAULT_TIMEOUT_SECONDS: Final = 10.0


class _Client:
    """The part that both clients share: a channel, and the stub of the service."""

    _open: ClassVar[staticmethod[[str, ChannelOptions], Any]]

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        options: ChannelOptions = PLAIN,
    ) -> None:
        self._timeout = timeout
        self._channel = self._open(address, options)
        self._stub = pb_grpc.PredictionServiceStub(self._channel)
        self._is_closed = False

    def _open_stub(self) -> Any:  # the published stub types cover only blocking calls
        if self._is_closed:
            raise ValueError("the client is closed; make another one")
        return self._stub

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else timeout


class IntentClient(_Client):
    """Blocking client of a frontend. Safe to use from several threads; close it, or use ``with``.

    Args:
        address: address of the frontend, ``host:port``.
        timeout: timeout of a call in seconds, unless the call sets its own.
        options: TLS, and the caller's certificate and credential.

    Raises:
        InvalidConnection: the files or the credential of ``options`` cannot be used.
    """

    _open = staticmethod(open_channel)

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
        with _typed_errors():
            return prediction_of(self._open_stub().Predict(request, timeout=self._seconds(timeout)))

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
        with _typed_errors():
            return explained_prediction_of(self._open_stub().Explain(request, timeout=self._seconds(timeout)))

    def predict_batch(self, queries: Iterable[Query], *, timeout: float | None = None) -> list[Outcome]:
        """Return the outcome of each query in order: a Prediction, or the ServingError with which the query failed.

        Raises:
            ServingError: the batch as a whole was refused.
        """
        with _typed_errors():
            return outcomes_of(self._open_stub().PredictBatch(_batch(queries), timeout=self._seconds(timeout)))

    def close(self) -> None:
        """Close the connection. Every later call raises ValueError."""
        self._is_closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncIntentClient(_Client):
    """Asyncio version of :class:`IntentClient`. Belongs to the event loop that created it.

    Close the client, or use ``async with``.
    """

    _open = staticmethod(open_async_channel)

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
        with _typed_errors():
            return prediction_of(await self._open_stub().Predict(request, timeout=self._seconds(timeout)))

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
        with _typed_errors():
            return explained_prediction_of(await self._open_stub().Explain(request, timeout=self._seconds(timeout)))

    async def predict_batch(self, queries: Iterable[Query], *, timeout: float | None = None) -> list[Outcome]:  # noqa: ASYNC109 - gRPC carries it to the service
        """Return the outcome of each query in order. Raises as :meth:`IntentClient.predict_batch` does."""
        with _typed_errors():
            return outcomes_of(await self._open_stub().PredictBatch(_batch(queries), timeout=self._seconds(timeout)))

    async def close(self) -> None:
        """Close the connection. Every later call raises ValueError."""
        self._is_closed = True
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _query(model_id: str, document: str, k: int, threshold: float | None, explain: Sequence[str] | None) -> Query:
    return Query(model_id, document, k, threshold, None if explain is None else tuple(explain))


def _batch(queries: Iterable[Query]) -> pb.PredictBatchRequest:
    return pb.PredictBatchRequest(requests=[request_of(pb.PredictRequest, query) for query in queries])


@contextmanager
def _typed_errors() -> Iterator[None]:
    """Raise the typed form of a gRPC error. The errors of both kinds of channel have the same methods."""
    try:
        yield
    except grpc.RpcError as error:
        failed: Any = error
        raise error_of_call(failed, "frontend") from error
