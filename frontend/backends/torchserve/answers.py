"""What handlers answer, as predictions.

A handler of ours takes many documents at once. Of others it is known that they answer with a label: as
``{"result": label}``, as the book's handler does with ``{"predict_res": label}``, or as text, in JSON or plain.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final

from serving.errors import InvalidRequest, ServingError
from serving.prediction import Outcome, Prediction, Query, ScoredLabel

DOCUMENT_INPUT: Final = "data"
"""The input that every handler takes: one document."""

DOCUMENTS_INPUT: Final = "documents"
"""The input of handlers that take many: a JSON list of objects with ``document`` and ``k``."""

_NOT_UNDERSTOOD: Final = "the answer of the model's handler at TorchServe is no label; correct the handler"
_FIRST_OF_SERVER_CODES: Final = 500


def documents_input(queries: Sequence[Query]) -> bytes:
    """Return ``queries`` as handlers of ours take them."""
    return json.dumps([{"document": query.document, "k": query.k} for query in queries], ensure_ascii=False).encode()


def outcomes_in(answer: bytes, queries: Sequence[Query], version: str) -> list[Outcome]:
    """Return the outcome of each query from the answer of a handler of ours, in order.

    Raises:
        ServingError: it is not such an answer.
    """
    try:
        result = _json_in(answer)
    except ValueError as error:
        raise ServingError(_NOT_UNDERSTOOD) from error
    match result:
        case {"results": list() as results} if len(results) == len(queries):
            return [_outcome(result, query, version) for result, query in zip(results, queries, strict=True)]
        case {"code": int() as code}:
            raise _refusal(code)
    raise ServingError(_NOT_UNDERSTOOD)


def prediction_in(answer: bytes, query: Query, version: str) -> Prediction:
    """Return the prediction in the answer of any handler.

    Raises:
        InvalidRequest: the handler refused the document.
        ServingError: it failed, or it answered with something else.
    """
    try:
        result = _json_in(answer)
    except ValueError:
        try:
            result = answer.decode().strip()
        except UnicodeDecodeError as error:
            raise ServingError(_NOT_UNDERSTOOD) from error
    outcome = _outcome(result, query, version)
    if isinstance(outcome, ServingError):
        raise outcome
    return outcome


def _json_in(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except RecursionError as error:
        raise ServingError(_NOT_UNDERSTOOD) from error


def _outcome(result: Any, query: Query, version: str) -> Outcome:
    match result:
        case str() as label if label:
            return Prediction(label, 0.0, (), query.model_id, version)
        case {"result": str() as label} | {"predict_res": str() as label}:
            best = _best(result.get("best", ()))
            score = result.get("score", 0.0)
            if best is not None and isinstance(score, int | float) and math.isfinite(score):
                return Prediction(label, float(score), best, query.model_id, version)
        case {"code": int() as code}:
            return _refusal(code)
    return ServingError(_NOT_UNDERSTOOD)


def _best(pairs: Any) -> tuple[ScoredLabel, ...] | None:
    try:
        return tuple(ScoredLabel(str(label), float(score)) for label, score in pairs)
    except (TypeError, ValueError):
        return None


def _refusal(code: int) -> ServingError:
    # TorchServe's own form of an error, which over gRPC comes as an answer.
    if code < _FIRST_OF_SERVER_CODES:
        return InvalidRequest("the model's handler at TorchServe does not take this document")
    return ServingError("the model's handler at TorchServe has no answer to this document")
