"""Conversion of inferences between messages of the protocol and domain types."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from frontend.open_inference.tensors import (
    BYTES,
    FP32,
    BytesTensor,
    InferenceAnswer,
    InferenceRequest,
    InputTensor,
    OutputTensor,
    RequestedOutput,
)
from serving.domain.errors import InvalidRequest
from serving.stubs import open_inference_pb2 as pb
from serving.wire.raw_tensors import pack_bytes, pack_floats, unpack_bytes

Parameters = Mapping[str, pb.InferParameter]

_SHARED_MEMORY: Final = "shared_memory_region"
_MICROSECONDS: Final = 1e6


def is_raw(request: pb.ModelInferRequest) -> bool:
    """Return whether the request's tensors are in raw form; the answer's are then raw as well."""
    return len(request.raw_input_contents) > 0


def inference_request_of(request: pb.ModelInferRequest) -> InferenceRequest:
    """Return the inference that a message requests. Unknown parameters are ignored.

    Raises:
        InvalidRequest: the tensors are both raw and typed, do not have one raw entry for each input, are damaged, or
            are in shared memory; or a parameter has a wrong value.
    """
    return InferenceRequest(
        request.model_name,
        request.model_version,
        tuple(_inputs_of(request)),
        tuple(_requested_output_of(output) for output in request.outputs),
        _timeout_of(request.parameters),
        _threshold_of(request.parameters),
        _key_of(request.parameters),
    )


def inference_response_of(answer: InferenceAnswer, request_id: str, *, raw: bool) -> pb.ModelInferResponse:
    """Return the response message for ``answer``.

    Args:
        request_id: id of the request, returned unchanged.
        raw: whether the tensors are in raw form, as in the request.
    """
    response = pb.ModelInferResponse(model_name=answer.model, model_version=answer.version, id=request_id)
    for tensor in answer.outputs:
        output = response.outputs.add(name=tensor.name, datatype=_datatype_of(tensor), shape=tensor.shape)
        if raw:
            response.raw_output_contents.append(_packed(tensor))
        elif isinstance(tensor, BytesTensor):
            output.contents.bytes_contents.extend(tensor.elements)
        else:
            output.contents.fp32_contents.extend(tensor.elements)
    return response


def _inputs_of(request: pb.ModelInferRequest) -> Iterator[InputTensor]:
    raw: Sequence[bytes | None] = request.raw_input_contents
    if not raw:
        raw = [None] * len(request.inputs)
    if len(raw) != len(request.inputs):
        raise InvalidRequest("raw_input_contents must have exactly one entry for each input, in their order")
    for tensor, entry in zip(request.inputs, raw, strict=True):
        if _SHARED_MEMORY in tensor.parameters:
            raise _no_shared_memory()
        if entry is not None and tensor.HasField("contents"):
            raise InvalidRequest(
                "inputs must not have contents if raw_input_contents is set; send the contents in one form"
            )
        yield InputTensor(tensor.name, tensor.datatype, tuple(tensor.shape), _elements_of(tensor, entry))


def _elements_of(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Sequence[bytes]:
    if tensor.datatype != BYTES:
        return ()
    if raw is not None:
        return unpack_bytes(raw)
    if any(field.name != "bytes_contents" for field, _ in tensor.contents.ListFields()):
        raise InvalidRequest(f"the contents of a tensor of datatype {BYTES} must be in bytes_contents alone")
    return tensor.contents.bytes_contents


def _requested_output_of(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> RequestedOutput:
    if _SHARED_MEMORY in output.parameters:
        raise _no_shared_memory()
    if "classification" not in output.parameters:
        return RequestedOutput(output.name)
    classes = _integer_of(output.parameters["classification"])
    if classes is None or classes < 1:
        raise InvalidRequest("the parameter 'classification' must be a whole number of classes, at least 1")
    return RequestedOutput(output.name, classes)


def _timeout_of(parameters: Parameters) -> float | None:
    """Return Triton's parameter ``timeout``, given in microseconds, in seconds; a value of 0 means no timeout."""
    if "timeout" not in parameters:
        return None
    timeout = _integer_of(parameters["timeout"])
    if timeout is None or timeout < 0:
        raise InvalidRequest("the parameter 'timeout' must be a whole number of microseconds")
    return timeout / _MICROSECONDS or None


def _threshold_of(parameters: Parameters) -> float | None:
    if "threshold" not in parameters:
        return None
    # KServe's clients can send fractions only as text.
    parameter = parameters["threshold"]
    chosen = parameter.WhichOneof("parameter_choice")
    try:
        threshold = math.nan if chosen in (None, "bool_param") else float(getattr(parameter, chosen))
    except ValueError:
        threshold = math.nan
    # NaN fails every comparison.
    if not 0.0 <= threshold <= 1.0:
        raise InvalidRequest("the parameter 'threshold' must be a number from 0 to 1")
    return threshold


def _key_of(parameters: Parameters) -> str:
    if "key" not in parameters:
        return ""
    parameter = parameters["key"]
    if parameter.WhichOneof("parameter_choice") != "string_param":
        raise InvalidRequest("the parameter 'key' must be a string")
    return parameter.string_param


def _integer_of(parameter: pb.InferParameter) -> int | None:
    match parameter.WhichOneof("parameter_choice"):
        case "int64_param":
            return parameter.int64_param
        case "uint64_param":
            return parameter.uint64_param
    return None


def _no_shared_memory() -> InvalidRequest:
    return InvalidRequest("tensors in shared memory are not supported; send the tensors in the message")


def _datatype_of(tensor: OutputTensor) -> str:
    return BYTES if isinstance(tensor, BytesTensor) else FP32


def _packed(tensor: OutputTensor) -> bytes:
    return pack_bytes(tensor.elements) if isinstance(tensor, BytesTensor) else pack_floats(tensor.elements)
