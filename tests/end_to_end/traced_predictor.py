"""The predictor, which records when it begins to answer which document; run with ``python -m`` and its own flags."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from predictor import service
from predictor.model.intent_model import IntentModel
from predictor.settings import PredictorSettings
from serving.domain.prediction import Outcome, Query
from serving.runtime.hosting import run
from serving.runtime.program import Program
from serving.runtime.settings import load_settings
from serving.runtime.workload import Workload
from tests.conftest import ROOT
from tests.end_to_end.processes import Stack, start

TRACE_VARIABLE = "INTENT_TEST_TRACE"


@contextmanager
def stack_with_trace(
    models: Path, folder: Path, *, transport: str, frontend: tuple[str, ...] = (), predictor: tuple[str, ...] = ()
) -> Iterator[tuple[Stack, Path]]:
    """Run both services; yield them ready, with the file of the trace; end them after the block."""
    trace = folder / "trace"
    trace.touch()
    with ExitStack() as ends:
        with patch.dict(os.environ, {TRACE_VARIABLE: str(trace), "PYTHONPATH": str(ROOT)}):
            engine = start(__name__, models, folder, *predictor, transport=transport)
        ends.callback(engine.kill)
        routes = f"intent-classification=predictor://{engine.address}"
        router = start("frontend", models, folder, "--routes", routes, *frontend, transport=transport)
        ends.callback(router.kill)
        router.wait_until_serving()
        yield Stack(models, router, engine), trace


def executions(trace: Path) -> dict[int, float]:
    """Return when each document was begun, by the number at its start, on the machine's monotonic clock."""
    lines = (line.split() for line in trace.read_text().splitlines())
    return {int(number): float(at) for number, at in lines}


def build(settings: PredictorSettings) -> Workload:
    """Return the predictor with its trace. Transports call this function in the serving process."""
    trace = os.open(os.environ[TRACE_VARIABLE], os.O_WRONLY | os.O_APPEND)
    answer = IntentModel.predict

    def predict(model: IntentModel, queries: Sequence[Query], *arguments: Any) -> Sequence[Outcome]:
        now = time.monotonic()
        os.write(trace, b"".join(b"%s %f\n" % (query.document.split(" ", 1)[0].encode(), now) for query in queries))
        return answer(model, queries, *arguments)

    # The patch lasts as long as the process.
    patch.object(IntentModel, "predict", predict).start()
    return service.build(settings)


if __name__ == "__main__":
    run(Program("predictor", "tests.end_to_end.traced_predictor:build"), load_settings(PredictorSettings))
