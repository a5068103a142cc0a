"""Extraction of the documents from the input tensors of an inference."""

from __future__ import annotations

from collections.abc import Sequence

from frontend.open_inference.tensors import BYTES, DOCUMENT, InputTensor
from serving.domain.errors import InvalidRequest


def documents_of(inputs: Sequence[InputTensor], most: int) -> list[str]:
    """Return the documents of the single input.

    Args:
        inputs: input tensors as the caller sent them.
        most: maximum number of documents in one request.

    Raises:
        InvalidRequest: there is an input other than ``document``, its type or shape is wrong, its number of elements
            differs from its shape, there are too many elements or none, or one is not UTF-8.
    """
    if [tensor.name for tensor in inputs] != [DOCUMENT]:
        raise InvalidRequest(f"a request must have exactly one input, named {DOCUMENT!r}")
    tensor = inputs[0]
    if tensor.datatype != BYTES:
        raise InvalidRequest(f"the input {DOCUMENT!r} must be of datatype {BYTES}")
    count = _rows_of(tensor.shape)
    if count > most:
        raise InvalidRequest(f"a request must have at most {most} documents; split it")
    if len(tensor.elements) != count:
        raise InvalidRequest(
            f"the shape of the input {DOCUMENT!r} requires {count} elements, but its contents have"
            f" {len(tensor.elements)}"
        )
    return [_text(element, row) for row, element in enumerate(tensor.elements)]


def _rows_of(shape: tuple[int, ...]) -> int:
    if len(shape) not in (1, 2) or shape[0] < 1 or shape[1:] not in ((), (1,)):
        raise InvalidRequest(f"the input {DOCUMENT!r} must have the shape [n] or [n, 1], for n documents, at least one")
    return shape[0]


def _text(element: bytes, row: int) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError:
        # The cause would put the document into the log.
        raise InvalidRequest(f"row {row} of the input {DOCUMENT!r} is not UTF-8 text") from None
