"""Inference call of the Open Inference Protocol v2, which Triton and MLServer implement."""

from __future__ import annotations

from typing import Final

import grpc

from benchmarks.calls import Call, WrongAnswer
from benchmarks.systems.base import check_label
from benchmarks.workload import DOCUMENT

INPUT: Final = "TEXT"
MODEL_NAME: Final = "intent"

_METHOD: Final = "/inference.GRPCInferenceService/ModelInfer"
_LENGTH_BYTES: Final = 4

pb: Final = grpc.protos("benchmarks/systems/protos/open_inference.proto")


def infer_call(address: str, shape: list[int]) -> Call:
    """Return a ``ModelInfer`` call with the one document as raw contents.

    Args:
        address: ``host:port`` of the server.
        shape: tensor shape that the server expects for one document.
    """
    document = DOCUMENT.encode()
    request = pb.ModelInferRequest(
        model_name=MODEL_NAME,
        inputs=[pb.Tensor(name=INPUT, datatype="BYTES", shape=shape)],
        raw_input_contents=[len(document).to_bytes(_LENGTH_BYTES, "little") + document],
    )
    return Call(address, _METHOD, request.SerializeToString(), _verify)


def _verify(answer: bytes) -> None:
    response = pb.ModelInferResponse.FromString(answer)
    if response.raw_output_contents:
        label = response.raw_output_contents[0][_LENGTH_BYTES:]
    elif response.outputs and response.outputs[0].contents.bytes_contents:
        label = response.outputs[0].contents.bytes_contents[0]
    else:
        raise WrongAnswer("the answer has no label")
    check_label(label.decode())
