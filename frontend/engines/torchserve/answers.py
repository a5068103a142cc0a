"""Conversion of handlers' answers into predictions.

Our handler takes many documents at once, applies thresholds and explains. Its earlier releases neither apply thresholds
nor explain, and their results have no ``fallback``. Other handlers are only known to answer with a label: as
``{"result": label}``, as ``{"predict_res": label}`` (the book's handler), or as text, in JSON or plain. If the answer
of one of these includes the label's score, the threshold is applied here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError

from frontend.engines.thresholds import held_against_threshold, unexplained, without_score
from serving.domain.errors import InvalidRequest, OutOfCapacity, ServingError
from serving.domain.explanation import Explanation
from serving.domain.manifest import Manifest
from serving.domain.prediction import Fallback, Outcome, Prediction, Query, ScoredLabel

DOCUMENT_INPUT: Final = "data"
"""Name of the input that every handler takes: one document."""

DOCUMENTS_INPUT: Final = "documents"
"""Name of the input of handlers that take many documents: a JSON list of objects with ``document`` and ``k``, and with
``threshold`` and ``explain`` if the query has them."""

_NOT_UNDERSTOOD: Final = "the answer of the model's handler at TorchServe is not a label; correct the handler"
_TOO_LARGE: Final = 413
_FIRST_OF_SERVER_CODES: Final = 500
_TOO_MUCH_AT_ONCE: Final = 503

_FINITE: Final = ConfigDict(allow_inf_nan=False)
_FALLBACK: Final[TypeAdapter[Fallback | None]] = TypeAdapter(Fallback | None, config=_FINITE)
_EXPLANATION: Final[TypeAdapter[Explanation | None]] = TypeAdapter(Explanation | None, config=_FINITE)


def documents_input(queries: Sequence[Query]) -> bytes:
    """Return ``queries`` in the form that our handlers take."""
    return json.dumps([_question(query) for query in queries], ensure_ascii=False).encode()


def _question(query: Query) -> dict[str, Any]:
    question: dict[str, Any] = {"document": query.document, "k": query.k}
    if query.threshold is not None:
        question["threshold"] = query.threshold
    if query.explain is not None:
        question["explain"] = query.explain
    return question


def outcomes_in(answer: bytes, queries: Sequence[Query], manifest: Manifest) -> list[Outcome]:
    """Return the outcome of each query from the answer of one of our handlers, in order.

    Raises:
        ServingError: the answer is not in the form of such a handler.
    """
    try:
        result = _json_in(answer)
    except ValueError as error:
        raise ServingError(_NOT_UNDERSTOOD) from error
    match result:
        case {"results": list() as results} if len(results) == len(queries):
            return [_outcome(result, query, manifest) for result, query in zip(results, queries, strict=True)]
        case {"code": int() as code}:
            raise _refusal(code, explained=False)
    raise ServingError(_NOT_UNDERSTOOD)


def prediction_in(answer: bytes, query: Query, manifest: Manifest) -> Prediction:
    """Return the prediction in the answer of any handler.

    Raises:
        InvalidRequest: the handler refused the document.
        ModelUnusable: the handler cannot give what the query asks for.
        ServingError: the handler failed, or answered with something else.
    """
    try:
        result = _json_in(answer)
    except ValueError:
        try:
            result = answer.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise ServingError(_NOT_UNDERSTOOD) from error
    outcome = _outcome(result, query, manifest)
    if isinstance(outcome, ServingError):
        raise outcome
    return outcome


def _json_in(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except RecursionError as error:
        raise ServingError(_NOT_UNDERSTOOD) from error


def _outcome(result: Any, query: Query, manifest: Manifest) -> Outcome:
    match result:
        case str() as label if label:
            return _judged(Prediction(label, 0.0, (), query.model_id, manifest.model_version), query, manifest, None)
        case {"result": str() as label} | {"predict_res": str() as label}:
            best = _best(result.get("best", ()))
            score = result.get("score")
            if best is not None and (score is None or (isinstance(score, int | float) and math.isfinite(score))):
                prediction = Prediction(label, float(score or 0.0), best, query.model_id, manifest.model_version)
                if "fallback" in result:
                    return _with_reasons(prediction, result, query)
                return _judged(prediction, query, manifest, score)
        case {"code": int() as code}:
            return _refusal(code, explained=query.explain is not None)
    return ServingError(_NOT_UNDERSTOOD)


def _judged(prediction: Prediction, query: Query, manifest: Manifest, score: float | None) -> Outcome:
    """Return the outcome for a handler that gives a label, with or without a score; an error if that is not enough."""
    if query.explain is not None:
        return unexplained("export the model for TorchServe again, or do not request an explanation")
    confidence = manifest.confidence
    if score is None:
        return without_score(prediction, query, confidence)
    scores = (scored.score for scored in prediction.best if scored.label == confidence.fallback)
    return held_against_threshold(prediction, query, confidence, next(scores, 0.0))


def _with_reasons(prediction: Prediction, result: Any, query: Query) -> Outcome:
    """Return the answer of a handler that applies thresholds and explains, with its fallback and explanation."""
    try:
        fallback = _FALLBACK.validate_python(result["fallback"])
        explanation = _EXPLANATION.validate_python(result.get("explanation"))
    except ValidationError as error:
        failure = ServingError(_NOT_UNDERSTOOD)
        failure.__cause__ = error
        return failure
    if (explanation is None) != (query.explain is None) or not _is_sound(explanation):
        return ServingError(_NOT_UNDERSTOOD)
    return prediction._replace(fallback=fallback, explanation=explanation)


def _is_sound(explanation: Explanation | None) -> bool:
    if explanation is None:
        return True
    count = len(explanation.tokens)
    indices_fit = all(0 <= index < count for index in explanation.unknown)
    return indices_fit and all(len(label.contributions) == count for label in explanation.labels)


def _best(pairs: Any) -> tuple[ScoredLabel, ...] | None:
    try:
        return tuple(ScoredLabel(str(label), float(score)) for label, score in pairs)
    except (TypeError, ValueError):
        return None


def _refusal(code: int, *, explained: bool) -> ServingError:
    # TorchServe's own form of an error, which arrives as an answer over gRPC.
    if code == _TOO_MUCH_AT_ONCE:
        return OutOfCapacity("the model at TorchServe accepts no more at the moment; try again shortly")
    if code == _TOO_LARGE:
        return InvalidRequest(
            "the answer is longer than TorchServe accepts; shorten the document, or request fewer labels"
        )
    if code >= _FIRST_OF_SERVER_CODES:
        return ServingError("the model's handler at TorchServe has no answer to this document")
    if explained:
        return InvalidRequest(
            "the model has no such label to explain, or its handler at TorchServe does not accept the "
            "document; request labels of the model's manifest"
        )
    return InvalidRequest("the model's handler at TorchServe does not accept this document")
