"""Spans of answers, for traced calls."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from serving.call.spans import Span
from serving.domain.errors import ServingError

Answer = TypeVar("Answer")

_LEFT = "CANCELLED"


def begin_inference(span: Span, queries: Sequence[object]) -> Span:
    """Return the span of answering ``queries``: a child of ``span`` that begins now."""
    part = span.child("inference")
    part.set_attribute("intent.queries", len(queries))
    return part


async def inference(span: Span, work: Awaitable[Answer], queries: Sequence[object]) -> Answer:
    """Return the result of ``work``, which answers ``queries``, and record it in a child of ``span``.

    Raises the errors that ``work`` raises.
    """
    part = begin_inference(span, queries)
    fault = _LEFT
    try:
        answer = await work
        fault = ""
    except ServingError as error:
        fault = error.code.name
        raise
    finally:
        part.end(fault)
    return answer
