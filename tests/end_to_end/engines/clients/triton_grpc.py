"""Triton's own gRPC clients: ``triton_grpc.py sync|aio ADDRESS`` maps orders to outcomes, one JSON object per line."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc  # type: ignore[import-not-found]  # only in that peer's environment
import tritonclient.grpc.aio  # type: ignore[import-not-found]
from google.protobuf import json_format
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException  # type: ignore[import-not-found]

SECONDS = 30


async def main(kind: str, address: str) -> None:
    module = tritonclient.grpc if kind == "sync" else tritonclient.grpc.aio
    client = module.InferenceServerClient(address)
    for line in sys.stdin:
        order = json.loads(line)
        do = order.pop("do")
        try:
            outcome = {"answer": await ACTIONS.get(do, called)(client, do, order, address)}
        except InferenceServerException as error:
            outcome = {"refused": error.status().removeprefix("StatusCode."), "message": error.message()}
        except grpc.RpcError as error:
            outcome = {"refused": error.code().name, "message": error.details()}
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()
    await waited_for(client.close())


async def waited_for(result: Any) -> Any:
    """Return the result, awaited if needed: the two clients have the same methods, and one returns coroutines."""
    return await result if inspect.isawaitable(result) else result


async def called(client: Any, do: str, order: dict[str, Any], _: str) -> Any:
    """Call the client method that the order names."""
    return await waited_for(getattr(client, do)(**order, client_timeout=SECONDS))


async def infer(client: Any, _: str, order: dict[str, Any], __: str) -> Any:
    """Query a model, with tensors as the client encodes them: raw."""
    inputs = []
    for tensor in order.pop("inputs"):
        values = np.array(tensor["data"], dtype=tensor.get("numpy", "object")).reshape(tensor["shape"])
        made = tritonclient.grpc.InferInput(tensor.get("name", "document"), tensor["shape"], tensor["datatype"])
        made.set_data_from_numpy(values)
        inputs.append(made)
    outputs = [tritonclient.grpc.InferRequestedOutput(**output) for output in order.pop("outputs", [])]
    result = await waited_for(
        client.infer(inputs=inputs, outputs=outputs or None, **{"client_timeout": SECONDS} | order)
    )
    response = result.get_response()
    arrays = {output.name: result.as_numpy(output.name) for output in response.outputs}
    return {
        "model": response.model_name,
        "version": response.model_version,
        "id": response.id,
        "raw": len(response.raw_output_contents),
        "outputs": {name: plain(array) for name, array in arrays.items()},
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
        "types": {output.name: output.datatype for output in response.outputs},
    }


async def message(_: Any, __: str, order: dict[str, Any], address: str) -> Any:
    """Send a message unchanged, with Triton's own stubs, for requests that the client would not send."""
    request = json_format.ParseDict(order["request"], service_pb2.ModelInferRequest())
    async with grpc.aio.insecure_channel(address) as channel:
        response = await service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=SECONDS)
    return json_format.MessageToDict(response, preserving_proto_field_name=True)


def plain(array: Any) -> Any:
    """Return the values of an array in their JSON form."""
    return [value.decode() if isinstance(value, bytes) else float(value) for value in array.flatten()]


ACTIONS = {"infer": infer, "message": message}

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
