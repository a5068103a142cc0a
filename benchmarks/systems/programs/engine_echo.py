"""The engine's limit: each call gets the same answer, unread, in the read that completes it. ``python -m ... PORT``."""

from __future__ import annotations

import sys
from typing import Final

from benchmarks.calls import framed
from benchmarks.systems.programs.engine import Call, serve
from benchmarks.workload import DOCUMENT
from serving.stubs import prediction_service_pb2 as pb

_ANSWER: Final = framed(pb.PredictResponse(response=DOCUMENT).SerializeToString())


def _echo(calls: list[Call]) -> None:
    for call in calls:
        call.answer(_ANSWER)


if __name__ == "__main__":
    serve(_echo, sys.argv[1])
