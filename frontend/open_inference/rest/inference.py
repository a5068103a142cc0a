"""Conversion of inferences between JSON, followed by binary tensors, and the protocol's messages.

Internally, all tensors are in raw form, whichever form the caller chose. Sources: the REST API of the Open Inference
Protocol, and Triton's binary tensor data extension.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from frontend.open_inference.rest.bodies import size_in
from frontend.open_inference.rest.json_requests import RestInference, RestInput, Value, parse_request
from frontend.open_inference.rest.json_tensors import elements_of, raw_of
from serving.domain.errors import InvalidRequest
from serving.stubs import open_inference_pb2 as pb

JSON_LENGTH_HEADER: Final = "inference-header-content-length"
"""Header with the size of the JSON in a body, in bytes; binary tensors follow the JSON."""

_SIZE: Final = "binary_data_size"
_BINARY: Final = "binary_data"
_ALL_BINARY: Final = "binary_data_output"
_LARGEST_INT64: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Forms:
    """Forms in which the caller wants the outputs."""

    by_name: Mapping[str, bool]
    """Whether each output is wanted as binary data, by name."""
    otherwise: bool

    def is_binary(self, output: str) -> bool:
        """Return whether ``output`` is wanted as binary data."""
        return self.by_name.get(output, self.otherwise)


def inference_of(model: str, version: str, body: bytes, json_length: str | None) -> tuple[pb.ModelInferRequest, Forms]:
    """Return the request that a body contains, and the forms in which the outputs are wanted.

    Args:
        model: model in the request's path.
        version: version in the request's path; empty if the path has none.
        body: JSON, followed by binary tensors.
        json_length: value of the header :data:`JSON_LENGTH_HEADER`; ``None``: the whole body is JSON.

    Raises:
        InvalidRequest: the body does not follow the protocol.
    """
    end = len(body) if json_length is None else _checked_length(json_length, len(body))
    parsed = parse_request(RestInference, body[:end])
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=parsed.id)
    binary = memoryview(body)[end:]
    for tensor in parsed.inputs:
        size = _binary_size(tensor)
        request.raw_input_contents.append(_raw(tensor, binary[:size], size))
        binary = binary[size or 0 :]
        added = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        _set_parameters(added, tensor.parameters, {_SIZE})
    if binary:
        raise InvalidRequest(
            f"the body has {len(binary)} bytes more than its tensors; {_SIZE} is the number of bytes of one tensor"
        )
    forms: dict[str, bool] = {}
    for output in parsed.outputs:
        if _BINARY in output.parameters:
            forms[output.name] = _flag(output.parameters, _BINARY)
        _set_parameters(request.outputs.add(name=output.name), output.parameters, {_BINARY})
    _set_parameters(request, parsed.parameters, {_ALL_BINARY})
    return request, Forms(forms, _flag(parsed.parameters, _ALL_BINARY))


def answer_of(response: pb.ModelInferResponse, forms: Forms) -> Response:
    """Return the answer in the form that the caller wants. Raises InvalidRequest if JSON cannot hold an output."""
    binary: list[bytes] = []
    outputs: list[dict[str, Any]] = []
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        parameters = dict(_parameters(tensor))
        if forms.is_binary(tensor.name):
            binary.append(raw)
            parameters[_SIZE] = len(raw)
        if parameters:
            output["parameters"] = parameters
        if not forms.is_binary(tensor.name):
            output["data"] = elements_of(raw, tensor.datatype)
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        answer["id"] = response.id
    if response.parameters:
        answer["parameters"] = dict(_parameters(response))
    answer["outputs"] = outputs
    if not binary:
        return JSONResponse(answer)
    text = json.dumps(answer, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Response(
        b"".join([text, *binary]),
        headers={JSON_LENGTH_HEADER: str(len(text))},
        media_type="application/octet-stream",
    )


def _checked_length(json_length: str, size: int) -> int:
    length = size_in(json_length)
    if length is None or length > size:
        raise InvalidRequest(f"the header {JSON_LENGTH_HEADER} must be the number of bytes of the body that are JSON")
    return length


def _binary_size(tensor: RestInput) -> int | None:
    size = tensor.parameters.get(_SIZE)
    if (size is None) == (tensor.data is None):
        raise InvalidRequest(f"each input must have either data, or the parameter {_SIZE} and binary data")
    if size is not None and (type(size) is not int or size < 0):
        raise InvalidRequest(f"the parameter {_SIZE} must be a number of bytes")
    return size


def _raw(tensor: RestInput, binary: memoryview, size: int | None) -> bytes:
    if tensor.data is not None:
        return raw_of(tensor.data, tensor.datatype, tensor.shape)
    if len(binary) != size:
        raise InvalidRequest(
            f"the body ends before the {_SIZE} of an input; binary data begins after {JSON_LENGTH_HEADER} bytes"
        )
    return bytes(binary)


def _flag(parameters: Mapping[str, Value], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"the parameter {name} must be true or false")
    return value


def _set_parameters(message: Any, parameters: Mapping[str, Value], own: set[str]) -> None:
    """Set the parameters of a message, except those of the REST API itself."""
    for name, value in parameters.items():
        if name in own:
            continue
        parameter = message.parameters[name]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, str):
            parameter.string_param = value
        elif isinstance(value, float):
            parameter.double_param = value
        elif value > _LARGEST_INT64:
            parameter.uint64_param = value
        else:
            parameter.int64_param = value


def _parameters(message: Any) -> Iterator[tuple[str, Value]]:
    for name, parameter in message.parameters.items():
        chosen = parameter.WhichOneof("parameter_choice")
        if chosen is not None:
            yield name, getattr(parameter, chosen)
