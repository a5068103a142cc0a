"""Client of TorchServe's management API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import grpc

from frontend.engines.torchserve.connection import Connection
from frontend.engines.torchserve.failures import (
    error_of,
    is_conflict,
    is_failed_handler,
    is_failed_start,
    is_unknown_model,
)
from frontend.engines.torchserve.options import TorchServeOptions
from serving.call.deadline import Deadline
from serving.domain.errors import InvalidModelFile, ModelIncomplete, ServingError
from serving.stubs import torchserve_management_pb2 as pb

EVERY_VERSION: Final = "all"
"""Version in a request to TorchServe that means all versions."""

_UP: Final = "READY"


class Described(NamedTuple):
    """A registered model as TorchServe describes it."""

    version: str
    url: str
    """Archive that the model was registered from."""
    workers: frozenset[tuple[str, str]]
    """Number and start time of each worker. TorchServe never gives the same pair to another registration, and keeps it
    when the process of a worker is restarted."""
    is_ready: bool
    """Whether a worker is up."""
    documents: bool
    """Whether the handler, if it was asked, reports that it takes many documents at once."""


class Management:
    """Registers models and reports what is registered.

    Every method raises a ServingError if TorchServe cannot be queried or refuses the call.
    """

    def __init__(self, connection: Connection, options: TorchServeOptions) -> None:
        self._connection = connection
        self._stub = connection.management
        self._options = options

    async def describe(self, name: str, deadline: Deadline, version: str = EVERY_VERSION) -> Sequence[Described]:
        """Return every version that is registered under ``name``, or only ``version``; empty if there is none."""
        request = pb.DescribeModelRequest(model_name=name, model_version=version)
        try:
            answer = await self._connection.call(self._stub.DescribeModel, request, deadline)
        except grpc.aio.AioRpcError as error:
            if is_unknown_model(error):
                return ()
            raise error_of(error) from error
        return _described(answer.msg)

    async def takes_documents(self, name: str, version: str, deadline: Deadline) -> bool:
        """Return whether the model's handler reports that it takes many documents at once. Waits for its worker."""
        request = pb.DescribeModelRequest(model_name=name, model_version=version, customized=True)
        try:
            answer = await self._connection.call(self._stub.DescribeModel, request, deadline)
        except grpc.aio.AioRpcError as error:
            if is_failed_handler(error):
                return False  # most handlers do not support descriptions
            raise error_of(error) from error
        return any(described.documents for described in _described(answer.msg))

    async def register(self, name: str, url: str, deadline: Deadline) -> bool:
        """Register an archive, without workers. Return whether the name was free.

        Raises:
            ModelIncomplete: the archive does not exist.
            InvalidModelFile: the archive cannot be read.
        """
        request = pb.RegisterModelRequest(
            model_name=name,
            url=url,
            batch_size=self._options.batch_size,
            max_batch_delay=self._options.batch_delay_milliseconds,
            response_timeout=self._options.response_seconds,
        )
        try:
            await self._connection.call(self._stub.RegisterModel, request, deadline)
        except grpc.aio.AioRpcError as error:
            if is_conflict(error):
                return False
            if is_unknown_model(error):
                raise ModelIncomplete(f"TorchServe's model store has no {url}; copy the archive there") from error
            raise _start_error(error) from error
        return True

    async def start_workers(self, name: str, version: str, deadline: Deadline) -> None:
        """Start the workers of a registered model, and wait for them.

        Raises:
            InvalidModelFile: the workers do not start.
        """
        workers = self._options.workers
        request = pb.ScaleWorkerRequest(
            model_name=name, model_version=version, min_worker=workers, max_worker=workers, synchronous=True
        )
        try:
            await self._connection.call(self._stub.ScaleWorker, request, deadline)
        except grpc.aio.AioRpcError as error:
            raise _start_error(error) from error

    async def unregister(self, name: str, version: str, deadline: Deadline) -> None:
        """Stop a model's workers and unregister it; its archive stays. Its pending queries are not answered."""
        request = pb.UnregisterModelRequest(model_name=name, model_version=version)
        try:
            await self._connection.call(self._stub.UnregisterModel, request, deadline)
        except grpc.aio.AioRpcError as error:
            if not is_unknown_model(error):
                raise error_of(error) from error


def _start_error(error: grpc.aio.AioRpcError) -> ServingError:
    if is_failed_start(error):
        return InvalidModelFile(
            "TorchServe cannot start the model from its archive; TorchServe's log has the reason; export "
            "the model again"
        )
    return error_of(error)


def _takes_documents(metadata: Any) -> bool:
    return isinstance(metadata, dict) and metadata.get("documents") is True


def _described(text: str) -> Sequence[Described]:
    try:
        return [
            Described(
                version=str(model["modelVersion"]),
                url=str(model["modelUrl"]),
                workers=frozenset((str(worker["id"]), str(worker["startTime"])) for worker in model["workers"]),
                is_ready=any(worker["status"] == _UP for worker in model["workers"]),
                documents=_takes_documents(model.get("customizedMetadata")),
            )
            for model in json.loads(text)
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ServingError("TorchServe's description of the model cannot be decoded; use TorchServe 0.12") from error
