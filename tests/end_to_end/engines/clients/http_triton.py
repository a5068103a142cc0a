"""Triton's own HTTP clients: ``http_triton.py sync|aio ADDRESS`` maps orders to outcomes, one JSON object per line."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
from typing import Any

import numpy as np
import tritonclient.http  # type: ignore[import-not-found]  # only in that peer's environment
import tritonclient.http.aio  # type: ignore[import-not-found]
from tritonclient.utils import InferenceServerException  # type: ignore[import-not-found]


async def main(kind: str, address: str) -> None:
    module = tritonclient.http if kind == "sync" else tritonclient.http.aio
    client = module.InferenceServerClient(address)
    for line in sys.stdin:
        order = json.loads(line)
        do = order.pop("do")
        try:
            outcome = {"answer": await ACTIONS.get(do, called)(client, do, order)}
        except InferenceServerException as error:
            outcome = {"refused": error.status(), "message": error.message()}
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()
    await waited_for(client.close())


async def waited_for(result: Any) -> Any:
    """Return the result, awaited if needed: the two clients have the same methods, and one returns coroutines."""
    return await result if inspect.isawaitable(result) else result


async def called(client: Any, do: str, order: dict[str, Any]) -> Any:
    """Call the client method that the order names."""
    return await waited_for(getattr(client, do)(**order))


async def infer(client: Any, _: str, order: dict[str, Any]) -> Any:
    """Query a model, with tensors in binary form or in JSON."""
    binary = order.pop("binary")
    inputs = []
    for tensor in order.pop("inputs"):
        values = np.array(tensor["data"], dtype=tensor.get("numpy", "object")).reshape(tensor["shape"])
        made = tritonclient.http.InferInput(tensor.get("name", "document"), tensor["shape"], tensor["datatype"])
        made.set_data_from_numpy(values, binary_data=binary)
        inputs.append(made)
    outputs = [tritonclient.http.InferRequestedOutput(**output) for output in order.pop("outputs", [])]
    result = await waited_for(client.infer(inputs=inputs, outputs=outputs or None, **order))
    response = result.get_response()
    arrays = {output["name"]: result.as_numpy(output["name"]) for output in response["outputs"]}
    return {
        "model": response["model_name"],
        "version": response["model_version"],
        "id": response.get("id"),
        "binary": sum("binary_data_size" in output.get("parameters", {}) for output in response["outputs"]),
        "outputs": {name: plain(array) for name, array in arrays.items()},
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
    }


def plain(array: Any) -> Any:
    """Return the values of an array in their JSON form."""
    return [value.decode() if isinstance(value, bytes) else value for value in array.flatten().tolist()]


ACTIONS = {"infer": infer}

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
