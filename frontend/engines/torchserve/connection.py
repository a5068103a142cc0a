"""The connections to one TorchServe: to its inference API and to its management API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import grpc
import structlog
from google.protobuf import empty_pb2
from grpc import ChannelConnectivity

from frontend.engines.channel import channel_to
from frontend.engines.torchserve.failures import is_refused_key
from frontend.engines.torchserve.keys import Api, Keys
from frontend.engines.traced import with_span
from grpc_http2.client.channel import Channel
from grpc_http2.client.servers.addresses import addresses_in
from serving.call.call import span_of_call
from serving.call.deadline import Deadline
from serving.call.tasks import Tasks
from serving.stubs import torchserve_inference_pb2 as inference
from serving.stubs import torchserve_inference_pb2_grpc as inference_grpc
from serving.stubs import torchserve_management_pb2 as management
from serving.stubs import torchserve_management_pb2_grpc as management_grpc

log = structlog.get_logger()

_PREDICTIONS: Final = f"{inference.DESCRIPTOR.services_by_name['InferenceAPIsService'].full_name}/Predictions"

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Connection:
    """Calls TorchServe, with keys if TorchServe requires them.

    Args:
        target: address of the inference API.
        management_target: address of the management API.
        keys: the keys.
        tasks: owns the tasks that watch the connections.
        on_loss: called when a connection, and with it the known state of the server, may have been lost.
    """

    def __init__(
        self, target: str, management_target: str, keys: Keys, tasks: Tasks, on_loss: Callable[[], None]
    ) -> None:
        self._target = target
        # TorchServe closes the connection of a client that pings more than twice in five minutes.
        self._channels = [
            channel_to(addresses_in(address), retries=False, pings=False) for address in (target, management_target)
        ]
        self._inference = inference_grpc.InferenceAPIsServiceStub(self._channels[0])
        self.management = management_grpc.ManagementAPIsServiceStub(self._channels[1])
        self._keys = keys
        self._on_loss = on_loss
        self.changes = 0
        """Number of state changes of both connections: while the number stays the same, so does the server."""
        for channel in self._channels:
            tasks.start(self._watch(channel))

    async def predict(self, name: str, version: str, inputs: Mapping[str, bytes], deadline: Deadline) -> bytes:
        """Return the answer of a model's handler. Raises grpc.aio.AioRpcError if there is no answer."""
        request = inference.PredictionsRequest(model_name=name, model_version=version, input=inputs)
        send: Any = self._inference.Predictions
        span = span_of_call()
        if span is not None:
            send = with_span(send, span, _PREDICTIONS, self._target)
        answer: inference.PredictionResponse = await self.call(send, request, deadline, Api.INFERENCE)
        return answer.prediction

    async def ping(self, deadline: Deadline) -> None:
        """Return once both APIs have answered. Raises grpc.aio.AioRpcError if one does not answer."""
        await self.call(self._inference.Ping, empty_pb2.Empty(), deadline, Api.INFERENCE)
        await self.call(self.management.ListModels, management.ListModelsRequest(limit=1), deadline)

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Answer],
        request: Request,
        deadline: Deadline,
        api: Api = Api.MANAGEMENT,
    ) -> Answer:
        """Return the answer of one RPC.

        Raises:
            grpc.aio.AioRpcError: the RPC failed.
            DeadlineExceeded: the deadline has passed.
        """
        deadline.check()
        metadata = self._keys.metadata(api)
        try:
            return await method(request, timeout=deadline.remaining(), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if not is_refused_key(error) or not await self._keys.changed(api, metadata, deadline):
                raise
        deadline.check()
        return await method(request, timeout=deadline.remaining(), metadata=self._keys.metadata(api))

    async def close(self) -> None:
        """Close both connections."""
        for channel in self._channels:
            await channel.close()

    async def _watch(self, channel: Channel) -> None:
        state = channel.get_state(try_to_connect=True)
        while True:
            await channel.wait_for_state_change(state)
            # Whatever the previous state was: the connection may have been lost and re-established between two
            # observations.
            self.changes += 1
            self._on_loss()
            if state is ChannelConnectivity.READY:
                log.info("connection to TorchServe lost")
            state = channel.get_state(try_to_connect=True)
