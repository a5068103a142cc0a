"""KServe's gRPC client: ``kserve_grpc.py ADDRESS`` reads orders and writes outcomes, one JSON object per line."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from kserve import InferenceGRPCClient, InferInput, InferRequest  # type: ignore[import-not-found]  # in its environment
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb  # type: ignore[import-not-found]
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as pb_grpc
from kserve.protocol.infer_type import RequestedOutput  # type: ignore[import-not-found]

SECONDS = 30


async def main(address: str) -> None:
    client = InferenceGRPCClient(address, timeout=SECONDS)
    for line in sys.stdin:
        order = json.loads(line)
        try:
            outcome = {"answer": await ACTIONS.get(order.pop("do"), called)(client, order, address)}
        except grpc.RpcError as error:
            outcome = {"refused": error.code().name, "message": error.details()}
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()
    await client.close()


async def called(client: Any, order: dict[str, Any], _: str) -> Any:
    """Call the client method that the order names."""
    return await getattr(client, order.pop("method"))(**order)


async def infer(client: Any, order: dict[str, Any], _: str) -> Any:
    """Query a model with typed or raw contents."""
    document = InferInput("document", order["shape"], "BYTES", data=None if order["raw"] else order["documents"])
    if order["raw"]:
        array = np.array(order["documents"], dtype="object").reshape(order["shape"])
        document.set_data_from_numpy(array, binary_data=True)
    outputs = [RequestedOutput(output["name"], output.get("parameters")) for output in order.get("outputs", [])]
    request = InferRequest(
        order["model"], [document], order.get("id"), parameters=order.get("parameters"), request_outputs=outputs or None
    )
    response = await client.infer(request)
    arrays = {output.name: output.as_numpy() for output in response.outputs}
    return {
        "model": response.model_name,
        "version": response.model_version,
        "id": response.id,
        "outputs": {name: plain(array) for name, array in arrays.items()},
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
    }


async def stub(_: Any, order: dict[str, Any], address: str) -> Any:
    """Make a call that the client has no method for, with KServe's own stubs."""
    request = getattr(pb, f"{order['method']}Request")(**order["fields"])
    async with grpc.aio.insecure_channel(address) as channel:
        response = await getattr(pb_grpc.GRPCInferenceServiceStub(channel), order["method"])(request, timeout=SECONDS)
    return json_format.MessageToDict(response, preserving_proto_field_name=True)


def plain(array: Any) -> Any:
    """Return the values of an array in their JSON form."""
    return [value.decode() if isinstance(value, bytes) else value for value in array.flatten().tolist()]


ACTIONS = {"infer": infer, "stub": stub}

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
