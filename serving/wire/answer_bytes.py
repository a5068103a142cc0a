"""Answers as protobuf bytes; the most frequent answers are written and read without a message object.

Nearly every answer consists of a label, a score and a model, and everything but the score has occurred before. The wire
format allows fields in any order (https://protobuf.dev/programming-guides/encoding/#order), so an answer is a cached
part, which protobuf itself has serialized, followed by the score. Answers are parsed in the same way. The messages of
both services have the same fields.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError

from grpc_http2.varint import varint
from intent_serving_client.messages import prediction_of
from serving.domain.errors import ServingError
from serving.domain.prediction import Outcome, Prediction
from serving.stubs import prediction_service_pb2 as pb
from serving.wire.messages import fill_result, ready_outcome_of, ready_outcomes_of, response_of
from serving.wire.path_bytes import path_bytes
from serving.wire.tags import FIXED32, LENGTH_DELIMITED, tag_of

_REMEMBERED: Final = 1 << 14
_SCORE: Final = struct.Struct("<Bf")
_SCORE_TAG: Final = tag_of(pb.PredictResponse, "score", FIXED32)
_RESPONSE_TAG: Final = bytes([tag_of(pb.PredictorPredictResult, "response", LENGTH_DELIMITED)])
_RESULT_TAG: Final = bytes([tag_of(pb.PredictorPredictBatchResponse, "results", LENGTH_DELIMITED)])
_REPLICA_TAG: Final = bytes([tag_of(pb.PredictorPredictBatchResponse, "replica", LENGTH_DELIMITED)])
# Longer answers contain explanations or many labels, and do not recur.
_MOST_BYTES_TO_REMEMBER: Final = 512


def answer_bytes(prediction: Prediction) -> bytes:
    """Return the response that answers ``prediction``, serialized."""
    label, score, best, model_id, version, fallback, explanation, path = prediction
    if best or fallback is not None or explanation is not None:
        return response_of(pb.PredictResponse, prediction).SerializeToString()
    answer = _all_but_the_score(label, model_id, version) + _SCORE.pack(_SCORE_TAG, score)
    return answer + path_bytes(path) if path else answer


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


def outcomes_in(data: bytes) -> list[Outcome | None]:
    """Return the outcomes in a predictor's response to a batch; ``None`` for queries that have to be sent alone.

    Raises:
        DecodeError: the response is damaged.
    """
    outcomes: list[Outcome | None] = []
    place, end = 0, len(data)
    try:
        while place < end:
            tag = data[place : place + 1]
            size, begins = _length(data, place + 1)
            place = begins + size
            if tag == _RESULT_TAG and place <= end:
                outcomes.append(_outcome_in(data[begins:place]))
            elif tag != _REPLICA_TAG or place > end or not data[begins:place].isascii():
                break
        else:
            return outcomes
    except IndexError:
        # The response is truncated; protobuf below raises the appropriate error.
        pass
    return ready_outcomes_of(pb.PredictorPredictBatchResponse.FromString(data))


def _outcome_in(result: bytes) -> Outcome | None:
    if not result:
        return None
    if result[:1] == _RESPONSE_TAG:
        size, begins = _length(result, 1)
        ends = begins + size
        remembered = ends - _SCORE.size
        if ends == len(result) and begins <= remembered <= _MOST_BYTES_TO_REMEMBER:
            tag, score = _SCORE.unpack_from(result, remembered)
            known = _known(result[begins:remembered]) if tag == _SCORE_TAG else None
            if known is not None:
                # If a field occurs twice, the last occurrence counts.
                label, _, best, model_id, version, fallback, explanation, _ = known
                return Prediction(label, score, best, model_id, version, fallback, explanation)
    return ready_outcome_of(pb.PredictorPredictResult.FromString(result))


def _length(data: bytes, place: int) -> tuple[int, int]:
    """Return the length that begins at ``place``, and the position after it. Raises IndexError on truncated data."""
    byte = data[place]
    if byte <= 0x7F:
        return byte, place + 1
    length, shift = 0, 0
    while byte > 0x7F:
        length |= (byte & 0x7F) << shift
        shift += 7
        place += 1
        byte = data[place]
    return length | byte << shift, place + 1


@functools.lru_cache(maxsize=_REMEMBERED)
def _known(response: bytes) -> Prediction | None:
    """Return the prediction in a serialized response; ``None`` if the bytes are not a response."""
    try:
        return prediction_of(pb.PredictorPredictResponse.FromString(response))
    except DecodeError:
        return None


@functools.lru_cache(maxsize=_REMEMBERED)
def _all_but_the_score(label: str, model_id: str, version: str) -> bytes:
    answer = Prediction(label, 0.0, (), model_id, version)
    return response_of(pb.PredictResponse, answer).SerializeToString()


def _failure(error: ServingError) -> bytes:
    result = pb.PredictorPredictResult()
    fill_result(result, error)
    return result.SerializeToString()
