"""KServe's REST client: ``http_kserve.py URL`` reads orders and writes outcomes, one JSON object per line."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import httpx  # type: ignore[import-not-found]  # only in that peer's environment
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest  # type: ignore[import-not-found]
from kserve.inference_client import RESTConfig  # type: ignore[import-not-found]
from kserve.protocol.infer_type import RequestedOutput  # type: ignore[import-not-found]


async def main(url: str) -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    for line in sys.stdin:
        order = json.loads(line)
        try:
            outcome = {"answer": await ACTIONS.get(order.pop("do"), called)(client, url, order)}
        except httpx.HTTPStatusError as error:
            outcome = {"refused": str(error.response.status_code), "message": str(error)}
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()
    await client.close()


async def called(client: Any, url: str, order: dict[str, Any]) -> Any:
    """Call the client method that the order names."""
    return await getattr(client, order.pop("method"))(url, **order)


async def infer(client: Any, url: str, order: dict[str, Any]) -> Any:
    """Query a model, with documents in binary form or in JSON."""
    document = InferInput("document", order["shape"], "BYTES", data=None if order["binary"] else order["documents"])
    if order["binary"]:
        array = np.array(order["documents"], dtype="object").reshape(order["shape"])
        document.set_data_from_numpy(array, binary_data=True)
    outputs = [RequestedOutput(output["name"], output.get("parameters")) for output in order.get("outputs", [])]
    request = InferRequest(order["model"], [document], order.get("id"), request_outputs=outputs or None)
    response = await client.infer(url, request, model_name=order["model"])
    arrays = {output.name: output.as_numpy() for output in response.outputs}
    return {
        "model": response.model_name,
        "id": response.id,
        "outputs": {name: plain(array) for name, array in arrays.items()},
        "shapes": {name: list(array.shape) for name, array in arrays.items()},
    }


def plain(array: Any) -> Any:
    """Return the values of an array in their JSON form."""
    return [value.decode() if isinstance(value, bytes) else value for value in array.flatten().tolist()]


ACTIONS = {"infer": infer}

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
