"""The steps of a pipeline as protobuf bytes, written without a message object.

Everything in most steps but the score and the time has occurred before: a step is a cached part, which protobuf itself
has serialized, followed by these two. The wire format allows fields in any order.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Final

from grpc_http2.varint import varint
from serving.domain.prediction import PathStep
from serving.stubs import prediction_service_pb2 as pb
from serving.wire.messages import path_step_of
from serving.wire.tags import FIXED32, FIXED64, LENGTH_DELIMITED, tag_of

_REMEMBERED: Final = 1 << 14
_MEASURES: Final = struct.Struct("<BfBd")
_SCORE_TAG: Final = tag_of(pb.PathStep, "score", FIXED32)
_MILLISECONDS_TAG: Final = tag_of(pb.PathStep, "milliseconds", FIXED64)
_STEP_TAG: Final = bytes([tag_of(pb.PredictResponse, "path", LENGTH_DELIMITED)])
_INNER_STEP_TAG: Final = bytes([tag_of(pb.PathStep, "path", LENGTH_DELIMITED)])


def path_bytes(path: Sequence[PathStep]) -> bytes:
    """Return the steps as the field ``path`` of a response, serialized."""
    return _steps_bytes(path, _STEP_TAG)


def _steps_bytes(path: Sequence[PathStep], tag: bytes) -> bytes:
    parts: list[bytes] = []
    for taken in path:
        name, models, label, score, seconds, onward, after, code, inner, votes, fallback = taken
        if votes or fallback is not None:
            # Their scores are new each time.
            step = path_step_of(taken).SerializeToString()
        else:
            step = _all_but_the_measures(PathStep(name, models, label, 0.0, 0.0, onward, after, code))
            step += _MEASURES.pack(_SCORE_TAG, score, _MILLISECONDS_TAG, seconds * 1e3)
            if inner:
                step += _steps_bytes(inner, _INNER_STEP_TAG)
        parts += (tag, varint(len(step)), step)
    return b"".join(parts)


@functools.lru_cache(maxsize=_REMEMBERED)
def _all_but_the_measures(step: PathStep) -> bytes:
    return path_step_of(step).SerializeToString()
