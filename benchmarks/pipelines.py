"""Cost of a pipeline's steps: a model, a pipeline of one step, and one of two, by turns on the same services.

``python -m benchmarks.pipelines --help``. The steps ask two copies of a sample model; every answer is the same label.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress

from benchmarks.loads.calls import Call, ask
from benchmarks.loads.load import Timed, check_installed, timed
from benchmarks.loads.workload import MODEL_ID, MODELS
from benchmarks.systems.ours import Ours
from benchmarks.systems.predictions import predict_call

MOST_THROUGHPUT_RATIO: Final = 2.3
"""Upper bound on the requests per second of one step, as a multiple of those of two steps."""
MOST_LATENCY_RATIO: Final = 2.2
"""Upper bound on the mean latency of two steps with one request in flight, as a multiple of that of one step."""
LOADS: Final = {"throughput": 64, "latency": 1}
"""Requests in flight, by figure."""

_COPY: Final = "second"
_STEPS: Final[Mapping[str, Mapping[str, Any]]] = {
    "one-step": {"first": {"ask": MODEL_ID}},
    "two-steps": {"first": {"ask": MODEL_ID, "route": {}, "otherwise": _COPY}},
}
_ASKED: Final = (MODEL_ID, *_STEPS)


def write_models(volume: Path, label: str) -> None:
    """Write two copies of the sample model, and the pipelines over them.

    Args:
        volume: new folder of models.
        label: label of the document, from which the first of two steps has a route.
    """
    for name in (MODEL_ID, _COPY):
        shutil.copytree(MODELS / MODEL_ID, volume / name)
    for name, steps in _STEPS.items():
        routed = {key: step | ({"route": {label: _COPY}} if "route" in step else {}) for key, step in steps.items()}
        manifest = {"Algorithm": "pipeline", "ModelName": name, "ModelVersion": "1", "Start": "first", "Steps": routed}
        (volume / name).mkdir()
        (volume / name / "manifest.json").write_text(json.dumps(manifest))


def measured(calls: Mapping[str, Call], workplace: Path, seconds: float, *, reverse: bool) -> dict[str, dict[str, Timed]]:
    """Return the runs of one round, by figure and by the model that was asked."""
    runs: dict[str, dict[str, Timed]] = {figure: {} for figure in LOADS}
    for name in reversed(calls) if reverse else calls:
        for figure, in_flight in LOADS.items():
            load = functools.partial(timed, calls[name], in_flight=in_flight, workplace=workplace)
            rate = load(requests=20 * in_flight).requests_per_second
            rate = load(requests=max(20 * in_flight, int(rate * seconds / 5))).requests_per_second
            runs[figure][name] = load(requests=max(20 * in_flight, int(rate * seconds)))
    return runs


def figures(rounds: list[dict[str, dict[str, Timed]]]) -> dict[str, Any]:
    """Return the medians over the rounds, and the ratios, each taken within a round."""
    ratios = {
        "requests/s of one step, to two": [
            each["throughput"]["one-step"].requests_per_second / each["throughput"]["two-steps"].requests_per_second
            for each in rounds
        ],
        "requests/s of the model, to two steps": [
            each["throughput"][MODEL_ID].requests_per_second / each["throughput"]["two-steps"].requests_per_second
            for each in rounds
        ],
        "mean latency of two steps, to one": [
            each["latency"]["two-steps"].latency.mean / each["latency"]["one-step"].latency.mean for each in rounds
        ],
        "mean latency of two steps, to the model": [
            each["latency"]["two-steps"].latency.mean / each["latency"][MODEL_ID].latency.mean for each in rounds
        ],
    }
    return {
        "requests_per_second": {
            name: round(statistics.median(each["throughput"][name].requests_per_second for each in rounds))
            for name in _ASKED
        },
        "mean_latency_ms": {
            name: round(statistics.median(each["latency"][name].latency.mean for each in rounds), 3) for name in _ASKED
        },
        "ratios": {
            name: {"median": round(statistics.median(values), 2), "least": round(min(values), 2), "most": round(max(values), 2)}
            for name, values in ratios.items()
        },
    }


def measure(transport: str, hops: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the figures of one shape of the services.

    Args:
        transport: transport of the services.
        hops: 2 for a frontend and a predictor, 1 for both in one process.
        rounds: number of rounds, every second one in the reverse order.
        seconds: duration of each run.
    """
    with tempfile.TemporaryDirectory(prefix="intent-bench-") as folder:
        workplace = Path(folder)
        write_models(workplace / "models", "timer")
        system = Ours(name="pipelines", title="pipelines", hops=hops, transport=transport)
        with system.serve(workplace / "models", workplace, predict_call) as running:
            calls = {name: predict_call(running.predict.address, model_id=name) for name in _ASKED}
            for call in calls.values():
                ask(call)
            with Progress(disable=not sys.stderr.isatty(), transient=True) as progress:
                numbers = progress.track(range(rounds), description=f"{hops} processes")
                return figures([measured(calls, workplace, seconds, reverse=bool(number % 2)) for number in numbers])


def main() -> None:
    """Print the figures as JSON, and exit with code 1 if one misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds")
    parser.add_argument("--seconds", type=float, default=1.5, help="duration of each run")
    parser.add_argument("--transport", choices=["http2", "grpcio"], default="http2")
    flags = parser.parse_args()
    check_installed()
    shapes = {
        name: measure(flags.transport, hops, flags.rounds, flags.seconds)
        for name, hops in (("two processes", 2), ("one process", 1))
    }
    json.dump(shapes, sys.stdout, indent=2)
    sys.stdout.write("\n")
    bounds = {"requests/s": MOST_THROUGHPUT_RATIO, "mean": MOST_LATENCY_RATIO}
    missed = [
        f"{shape}, {name}: {ratio['median']}, wanted: at most {bounds[name.partition(' ')[0]]}"
        for shape, found in shapes.items()
        for name, ratio in found["ratios"].items()
        if ratio["median"] > bounds[name.partition(" ")[0]]
    ]
    raise SystemExit("\n".join(missed) or 0)


if __name__ == "__main__":
    main()
