"""Tensors of an answer, typed or raw: Triton always answers raw, MLServer in the form of the request, KServe typed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from serving.domain.errors import InvalidRequest, ModelUnusable
from serving.stubs import open_inference_pb2 as pb
from serving.wire.raw_tensors import unpack_bytes, unpack_floats


class Tensor(NamedTuple):
    """An output as received."""

    output: pb.ModelInferResponse.InferOutputTensor
    raw: bytes | None
    """Raw elements; ``None`` if the elements are in ``output.contents``."""


def tensor_of(response: pb.ModelInferResponse, name: str) -> Tensor:
    """Return the output named ``name``.

    Raises:
        ModelUnusable: the output is missing, or its elements cannot be told from those of other outputs.
    """
    outputs, raw = response.outputs, response.raw_output_contents
    index = next((index for index, output in enumerate(outputs) if output.name == name), None)
    if index is None:
        raise unfit(name, "is missing")
    output = outputs[index]
    if not raw:
        return Tensor(output, None)
    if len(raw) == len(outputs):
        return Tensor(output, raw[index])
    # The protocol has raw contents for all outputs or for none. A mixture with typed ones can still be read in one way.
    in_raw = [index for index, other in enumerate(outputs) if not other.contents.ByteSize()]
    if len(raw) != len(in_raw):
        raise unfit(name, "cannot be distinguished from the others")
    return Tensor(output, raw[in_raw.index(index)] if index in in_raw else None)


def texts_in(tensor: Tensor, shape: Sequence[int]) -> Sequence[bytes]:
    """Return the elements of a BYTES tensor of ``shape``, ignoring sizes of 1.

    Raises:
        ModelUnusable: the tensor has another type or shape, or is damaged.
    """
    output, raw = tensor
    if output.datatype != "BYTES":
        raise unfit(output.name, "is not of type BYTES")
    try:
        texts = output.contents.bytes_contents if raw is None else unpack_bytes(raw)
    except InvalidRequest as error:
        raise unfit(output.name, "is damaged") from error
    _check_shape(output, len(texts), shape)
    return texts


def numbers_in(tensor: Tensor, shape: Sequence[int]) -> Sequence[float]:
    """Return the elements of an FP32 or FP64 tensor of ``shape``, row by row, ignoring sizes of 1.

    Raises:
        ModelUnusable: the tensor has another type or shape, or is damaged.
    """
    output, raw = tensor
    if output.datatype not in ("FP32", "FP64"):
        raise unfit(output.name, "is neither of type FP32 nor FP64")
    numbers: Sequence[float]
    if raw is None:
        numbers = output.contents.fp32_contents if output.datatype == "FP32" else output.contents.fp64_contents
    else:
        try:
            numbers = unpack_floats(raw, output.datatype)
        except InvalidRequest as error:
            raise unfit(output.name, "is damaged") from error
    _check_shape(output, len(numbers), shape)
    return numbers


def unfit(name: str, fault: str) -> ModelUnusable:
    """Return the error for an answer that does not match the manifest."""
    return ModelUnusable(
        f"output {name!r} of the engine's answer {fault}; OpenInference in manifest.json must name the model's outputs"
    )


def _check_shape(output: pb.ModelInferResponse.InferOutputTensor, elements: int, shape: Sequence[int]) -> None:
    # With a wrong shape, rows could be taken for columns.
    if elements != math.prod(shape) or _without_ones(output.shape) != _without_ones(shape):
        wanted = ", ".join(map(str, shape))
        raise unfit(output.name, f"is not of shape [{wanted}], for the documents that were sent")


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]
