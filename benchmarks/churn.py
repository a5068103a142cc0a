"""Cost of churn to resident tenants: thousands of tenants, with a memory budget for a tenth of them.

``python -m benchmarks.churn --help``. Starts its own predictor on a free port and calls it over loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from benchmarks.tenants import load_directly, make_tenants, zipf
from predictor.model.intent_model import IntentModel
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.wire.residency_client import ask_residency
from tests.end_to_end.processes import Service, start

DOCUMENTS = (
    "make a 10 minute timer", "what is my balance", "book a flight to paris", "how do i say hello in spanish",
    "why was my card declined", "what is the weather tomorrow", "tell me a joke", "transfer money to savings",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Load:
    """Load that the predictor gets."""

    tenants: int = 2000
    models: int = 20
    budget_models: int = 200
    requests: int = 100_000
    callers: int = 32
    exponent: float = 1.0


@dataclass(slots=True)
class Figures:
    """Figures of a run. Times are in milliseconds."""

    requests: int = 0
    errors: int = 0
    wrong_labels: int = 0
    loads: int = 0
    evictions: int = 0
    hit_rate: float = 0.0
    cold_load_p50: float = 0.0
    resident_p99_alone: float = 0.0
    resident_p99_in_churn: float = 0.0
    resident_p99_ratio: float = 0.0
    requests_per_second: float = 0.0


def measure(sample: Path, load: Load, workplace: Path) -> Figures:
    """Run the load and return its figures."""
    volume = workplace / "models"
    ids = make_tenants(sample, volume, tenants=load.tenants, models=load.models)
    direct = load_directly(volume, ids[: load.models])
    size = max(model.size for model in direct.values())
    pinned = ids[0]
    memory = str(size * load.budget_models + size // 2)
    service = start("predictor", volume, workplace, "--model-memory", memory, "--pin", pinned)
    try:
        service.wait_until_serving()
        return asyncio.run(_measure(service, load, ids, direct))
    finally:
        service.stop()


async def _measure(service: Service, load: Load, ids: Sequence[ModelId], direct: dict[ModelId, IntentModel]) -> Figures:
    figures = Figures()
    expected = _expected_labels(ids, direct)
    async with grpc.aio.insecure_channel(service.address) as channel:
        stub = pb_grpc.PredictorStub(channel)
        pinned = ids[0]
        # Baseline with the same callers and hops but without churn: all requests are for the pinned model.
        alone = await _ask(
            stub, figures, expected, itertools.repeat(pinned), requests=load.requests // 10, callers=load.callers
        )
        figures.resident_p99_alone = _percentile(alone[pinned], 99)
        started = time.perf_counter()
        mixed = await _ask(
            stub, figures, expected, zipf(ids, load.exponent, 1), requests=load.requests, callers=load.callers
        )
        figures.requests_per_second = load.requests / (time.perf_counter() - started)
    figures.resident_p99_in_churn = _percentile(mixed[pinned], 99)
    figures.resident_p99_ratio = figures.resident_p99_in_churn / figures.resident_p99_alone
    loads = [event["seconds"] * 1e3 for event in service.events() if event["event"] == "model loaded"]
    figures.cold_load_p50 = statistics.median(loads[load.budget_models :] or loads)
    counters = ask_residency(service.address, limit=1).counters
    figures.loads, figures.evictions = int(counters["loads"]), int(counters["evictions"])
    figures.hit_rate = counters["hits"] / (counters["hits"] + counters["misses"])
    return figures


def _expected_labels(ids: Sequence[ModelId], direct: dict[ModelId, IntentModel]) -> dict[tuple[ModelId, str], str]:
    labels: dict[tuple[ModelId, str], str] = {}
    for number, model_id in enumerate(ids):
        model = direct[ids[number % len(direct)]]
        answers = model.predict([Query(model_id, document) for document in DOCUMENTS])
        for document, answer in zip(DOCUMENTS, answers, strict=True):
            assert isinstance(answer, Prediction)
            labels[model_id, document] = answer.label
    return labels


async def _ask(
    stub: pb_grpc.PredictorStub,
    figures: Figures,
    expected: dict[tuple[ModelId, str], str],
    wanted: Iterator[ModelId],
    *,
    requests: int,
    callers: int,
) -> dict[ModelId, list[float]]:
    """Send ``requests`` requests from ``callers`` callers; return the milliseconds of each answer, by model."""
    chance = random.Random(2)
    times: dict[ModelId, list[float]] = {}
    questions = iter([(next(wanted), chance.choice(DOCUMENTS)) for _ in range(requests)])

    async def caller() -> None:
        for model_id, document in questions:
            request = pb.PredictorPredictRequest(runId=model_id, document=document)
            started = time.perf_counter()
            figures.requests += 1
            try:
                answer = await stub.PredictorPredict(request, timeout=60)  # type: ignore[misc]  # an asyncio channel's
            except grpc.RpcError:
                figures.errors += 1
                continue
            times.setdefault(model_id, []).append((time.perf_counter() - started) * 1e3)
            figures.wrong_labels += answer.label != expected[model_id, document]

    await asyncio.gather(*(caller() for _ in range(callers)))
    return times


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def main() -> None:
    """Print the figures as JSON."""
    usual = Load()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sample", type=Path, default=Path("models/clinc150"), help="folder of the model that tenants have"
    )
    parser.add_argument("--requests", type=int, default=usual.requests)
    parser.add_argument("--tenants", type=int, default=usual.tenants)
    parser.add_argument("--models", type=int, default=usual.models, help="number of distinct models of the tenants")
    parser.add_argument("--budget-models", type=int, default=usual.budget_models)
    flags = parser.parse_args()
    load = Load(tenants=flags.tenants, models=flags.models, requests=flags.requests, budget_models=flags.budget_models)
    with tempfile.TemporaryDirectory(dir=".") as workplace:
        figures = measure(flags.sample, load, Path(workplace).resolve())
    json.dump(asdict(figures), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
