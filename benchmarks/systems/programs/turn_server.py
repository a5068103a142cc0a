"""Minimal server of the real model: calls that arrive in one turn of the event loop are answered together.

As in a service, a request has an id, a deadline, checks of model id and document, and an entry in a histogram. There
are no guards, no other methods, no flow control, and no handling of callers that disconnect. ``python -m ... PORT``.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.calls import framed
from benchmarks.systems.programs.engine import Call, EngineConnection, serve
from benchmarks.tenants import load_directly
from benchmarks.workload import MODEL_ID, MODELS
from predictor.model.intent_model import IntentModel
from serving.domain.errors import ServingError
from serving.domain.model_id import ModelId, parse_model_id
from serving.domain.prediction import Prediction, Query
from serving.domain.query_limits import QueryLimits
from serving.stubs import prediction_service_pb2 as pb
from serving.wire.messages import query_of, response_of

_PREFIX_BYTES: Final = 5
_DEADLINE_SECONDS: Final = 10.0
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_LIMITS: Final = QueryLimits(max_document_bytes=1 << 16, max_batch_size=1)
_BOUNDS_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

_INVALID_ARGUMENT: Final = b"3"
_DEADLINE_EXCEEDED: Final = b"4"


@dataclass(slots=True)
class _Asked:
    call: Call
    query: Query
    id: bytes
    deadline: float


class Turn:
    """Collector of the calls of one turn of the loop, from all connections."""

    def __init__(self, models: Mapping[ModelId, IntentModel]) -> None:
        self._models = models
        self._calls: list[Call] = []
        self._process = os.urandom(8).hex()
        self._numbers = itertools.count()
        self._histogram = [0] * (len(_BOUNDS_SECONDS) + 1)
        self._counts: Counter[ModelId] = Counter()

    def add(self, calls: list[Call]) -> None:
        """Answer ``calls`` at the end of this turn."""
        if not self._calls:
            asyncio.get_running_loop().call_soon(self._answer)
        self._calls += calls

    def _answer(self) -> None:
        calls, self._calls = self._calls, []
        arrived = time.monotonic()
        by_model: dict[ModelId, list[_Asked]] = {}
        touched: set[EngineConnection] = {call.connection for call in calls}
        for call in calls:
            try:
                asked = self._read(call, arrived)
                model_id = parse_model_id(asked.query.model_id)
                _LIMITS.check(asked.query)
            except ServingError:
                _refuse(call, _INVALID_ARGUMENT)
                continue
            by_model.setdefault(model_id, []).append(asked)
        for model_id, group in by_model.items():
            outcomes = self._models[model_id].predict([asked.query for asked in group])
            for asked, outcome in zip(group, outcomes, strict=True):
                assert isinstance(outcome, Prediction)
                self._send(asked, model_id, outcome, arrived)
        for connection in touched:
            connection.flush()

    def _read(self, call: Call, arrived: float) -> _Asked:
        request_id, deadline = b"", arrived + _DEADLINE_SECONDS
        for name, value in call.headers:
            if name == b"grpc-timeout":
                deadline = arrived + int(value[:-1]) * _UNITS[value[-1:].decode()]
            elif name == b"x-request-id":
                request_id = value
        query = query_of(pb.PredictRequest.FromString(call.body[_PREFIX_BYTES:]))
        return _Asked(call, query, request_id or b"%b%016x" % (self._process.encode(), next(self._numbers)), deadline)

    def _send(self, asked: _Asked, model_id: ModelId, prediction: Prediction, arrived: float) -> None:
        now = time.monotonic()
        if now > asked.deadline:
            _refuse(asked.call, _DEADLINE_EXCEEDED)
            return
        message = response_of(pb.PredictResponse, prediction).SerializeToString()
        asked.call.answer(framed(message), ((b"grpc-status", b"0"), (b"x-request-id", asked.id)))
        self._histogram[bisect.bisect_left(_BOUNDS_SECONDS, now - arrived)] += 1
        self._counts[model_id] += 1


def _refuse(call: Call, status: bytes) -> None:
    call.answer(b"", ((b"grpc-status", status),))


if __name__ == "__main__":
    serve(Turn(load_directly(MODELS, [parse_model_id(MODEL_ID)])).add, sys.argv[1])
