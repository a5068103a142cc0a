"""Answers as bytes of protobuf, for the most frequent ones without a message in between.

Nearly every answer is a label, a score and a model, and all but the score has been answered before. The wire takes
fields in any order (https://protobuf.dev/programming-guides/encoding/#order), so an answer is a remembered part, which
protobuf itself has written, and the score behind it. The messages of both services have the same fields.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Final

from grpc_http2.varint import varint
from serving.errors import ServingError
from serving.messages import fill_result, response_of
from serving.prediction import Outcome, Prediction
from serving.stubs import prediction_service_pb2 as pb

_REMEMBERED: Final = 1 << 14
_FIXED32: Final = 5
_LENGTH_DELIMITED: Final = 2


def _tag(message: type, field: str, wire_type: int) -> int:
    number: int = message.DESCRIPTOR.fields_by_name[field].number  # type: ignore[attr-defined]
    return number << 3 | wire_type


_SCORE: Final = struct.Struct("<Bf")
_SCORE_TAG: Final = _tag(pb.PredictResponse, "score", _FIXED32)
_RESPONSE_TAG: Final = bytes([_tag(pb.PredictorPredictResult, "response", _LENGTH_DELIMITED)])
_RESULT_TAG: Final = bytes([_tag(pb.PredictorPredictBatchResponse, "results", _LENGTH_DELIMITED)])


def answer_bytes(prediction: Prediction) -> bytes:
    """Return the response that answers ``prediction``, serialized."""
    label, score, best, model_id, version, fallback, explanation = prediction
    if best or fallback is not None or explanation is not None:
        return response_of(pb.PredictResponse, prediction).SerializeToString()
    return _all_but_the_score(label, model_id, version) + _SCORE.pack(_SCORE_TAG, score)


def batch_answer_bytes(outcomes: Sequence[Outcome | None], replica: str) -> bytes:
    """Return the predictor's response to a batch, serialized."""
    parts: list[bytes] = []
    for outcome in outcomes:
        if isinstance(outcome, Prediction):
            response = answer_bytes(outcome)
            result = _RESPONSE_TAG + varint(len(response)) + response
        elif outcome is None:
            result = b""
        else:
            result = _failure(outcome)
        parts += (_RESULT_TAG, varint(len(result)), result)
    parts.append(pb.PredictorPredictBatchResponse(replica=replica).SerializeToString())
    return b"".join(parts)


@functools.lru_cache(maxsize=_REMEMBERED)
def _all_but_the_score(label: str, model_id: str, version: str) -> bytes:
    answer = Prediction(label, 0.0, (), model_id, version)
    return response_of(pb.PredictResponse, answer).SerializeToString()


def _failure(error: ServingError) -> bytes:
    result = pb.PredictorPredictResult()
    fill_result(result, error)
    return result.SerializeToString()
