"""Meaning of the statuses that TorchServe 0.12 answers with, found by experiment.

TorchServe's own messages end with the name of a Java class, which distinguishes them from those of gRPC:

- ``INTERNAL``, "Model not found" or "Model version: … does not exist": the model is not registered (``NOT_FOUND`` from
  the management API);
- ``INTERNAL``, "… has no worker to serve inference request", or "InternalServerException.()" alone when a handler is
  asked for a description: the model has no worker, or its queue is full;
- ``INTERNAL``, "Worker died.": the worker's process ended, or did not answer in time and was terminated;
- ``UNAVAILABLE``, "Prediction failed": the handler raised an exception; other codes if the handler chose one;
- ``PERMISSION_DENIED``: no valid key ("Token Authorization failed"), or "Model API disabled";
- ``UNKNOWN`` without a message, for ``RegisterModel``: the name and version are already registered; for
  ``UnregisterModel``: the version is the default of several versions.
"""

from __future__ import annotations

from typing import Final

import grpc
from grpc import StatusCode

from intent_serving_client.remote import error_of_call
from serving.domain.errors import INTERNAL_MESSAGE, InvalidRequest, OutOfCapacity, ServingError, Unavailable

_ENGINE: Final = "TorchServe"

_MARKS: Final = ("org.pytorch.serve.", "InternalServerException")
_UNKNOWN_MODEL: Final = ("ModelNotFoundException", "ModelVersionNotFoundException")
_REFUSED_KEY: Final = "Token Authorization"
_DISABLED: Final = "Model API disabled"
_WITHOUT_WORKER: Final = ("has no worker to serve", "InternalServerException.()")
_WORKER_DIED: Final = "Worker died."
_OUT_OF_MEMORY: Final = "Out of resources"

_PASSING: Final = {
    _REFUSED_KEY: "TorchServe does not accept the frontend's key; the operator has to renew the key",
    _DISABLED: "TorchServe does not allow clients to register models; the operator has to enable "
    "TorchServe's model API",
    **dict.fromkeys(_UNKNOWN_MODEL, "the model was unregistered at TorchServe meanwhile; try again"),
    _WORKER_DIED: "the model's worker at TorchServe ended; try again",
}


def is_unknown_model(error: grpc.aio.AioRpcError) -> bool:
    """Return whether no such model is registered."""
    return any(mark in _text(error) for mark in _UNKNOWN_MODEL)


def is_of_torchserve(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the error comes from TorchServe or a handler, rather than from gRPC."""
    return any(mark in _text(error) for mark in _MARKS)


def is_without_worker(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the model has no worker, or its queue is full."""
    return any(mark in _text(error) for mark in _WITHOUT_WORKER)


def is_refused_key(error: grpc.aio.AioRpcError) -> bool:
    """Return whether TorchServe requires another key."""
    return error.code() is StatusCode.PERMISSION_DENIED and _REFUSED_KEY in _text(error)


def is_conflict(error: grpc.aio.AioRpcError) -> bool:
    """Return whether the request conflicts with an existing registration."""
    return error.code() is StatusCode.UNKNOWN


def is_failed_start(error: grpc.aio.AioRpcError) -> bool:
    """Return whether an archive cannot be read, or its workers do not start."""
    return error.code() in (StatusCode.INTERNAL, StatusCode.INVALID_ARGUMENT) and is_of_torchserve(error)


def is_failed_handler(error: grpc.aio.AioRpcError) -> bool:
    """Return whether a model's handler was called and failed, with any status that it chose."""
    ours = is_unknown_model(error) or is_without_worker(error) or _WORKER_DIED in _text(error)
    return is_of_torchserve(error) and not ours


def error_of(error: grpc.aio.AioRpcError) -> ServingError:
    """Return the error for a failed call about which nothing more is known."""
    if is_without_worker(error):
        return OutOfCapacity("the model's queue at TorchServe is full; try again shortly")
    for mark, message in _PASSING.items():
        if mark in _text(error):
            return Unavailable(message)
    return ServingError(INTERNAL_MESSAGE) if is_of_torchserve(error) else error_of_call(error, _ENGINE)


def error_of_prediction(error: grpc.aio.AioRpcError) -> ServingError:
    """Return the error for a failed prediction."""
    if not is_failed_handler(error):
        return error_of(error)
    if _OUT_OF_MEMORY in _text(error) or error.code() is StatusCode.RESOURCE_EXHAUSTED:
        return OutOfCapacity("the model at TorchServe accepts no more at the moment; try again shortly")
    if error.code() is StatusCode.INVALID_ARGUMENT:
        return InvalidRequest("the model's handler at TorchServe does not accept this document")
    return ServingError("the model's handler at TorchServe failed; TorchServe's log has the details")


def _text(error: grpc.aio.AioRpcError) -> str:
    return error.details() or ""
