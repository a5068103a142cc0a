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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress

from benchmarks.loads.calls import Call, ask
from benchmarks.loads.load import Timed, check_installed, timed
from benchmarks.loads.workload import LABEL, MODEL_ID, MODELS
from benchmarks.systems.ours import Ours
from benchmarks.systems.predictions import predict_call

MOST_THROUGHPUT_RATIO: Final = 2.3
"""Upper bound on the requests per second of one step, as a multiple of those of two steps."""
MOST_LATENCY_RATIO: Final = 2.2
"""Upper bound on the mean latency of two steps with one request in flight, as a multiple of that of one step."""
LOADS: Final = {"throughput": 64, "latency": 1}
"""Requests in flight, by figure."""

_COPY: Final = "second"
_ONE_STEP: Final = "one-step"
_TWO_STEPS: Final = "two-steps"
_FIRST_STEPS: Final[Mapping[str, Mapping[str, Any]]] = {
    _ONE_STEP: {"ask": MODEL_ID},
    _TWO_STEPS: {"ask": MODEL_ID, "route": {LABEL: _COPY}, "otherwise": _COPY},
}
_ASKED: Final = (MODEL_ID, *_FIRST_STEPS)


def write_models(volume: Path) -> None:
    """Write two copies of the sample model, and the pipelines over them, to a new folder of models."""
    for name in (MODEL_ID, _COPY):
        shutil.copytree(MODELS / MODEL_ID, volume / name)
    for name, step in _FIRST_STEPS.items():
        manifest = {"Algorithm": "pipeline", "ModelVersion": "1", "Start": "first", "Steps": {"first": step}}
        (volume / name).mkdir()
        (volume / name / "manifest.json").write_text(json.dumps(manifest))


Round = Mapping[str, Mapping[str, Timed]]
"""Runs of one round, by figure and by the model that was asked."""


def measured(calls: Mapping[str, Call], workplace: Path, seconds: float) -> Round:
    """Return the runs of one round.

    Args:
        calls: calls by the model that they ask, in the order in which they are measured.
        workplace: folder for the files of the run.
        seconds: duration of each run.
    """
    runs: dict[str, dict[str, Timed]] = {figure: {} for figure in LOADS}
    for name, call in calls.items():
        for figure, in_flight in LOADS.items():
            load = functools.partial(timed, call, in_flight=in_flight, workplace=workplace)
            rate = load(requests=20 * in_flight).requests_per_second
            rate = load(requests=max(20 * in_flight, int(rate * seconds / 5))).requests_per_second
            runs[figure][name] = load(requests=max(20 * in_flight, int(rate * seconds)))
    return runs


def figures(rounds: Sequence[Round]) -> dict[str, Any]:
    """Return the medians over the rounds, and the ratios, each taken within a round."""

    def rate(each: Round, name: str) -> float:
        return each["throughput"][name].requests_per_second

    def mean(each: Round, name: str) -> float:
        return each["latency"][name].latency.mean

    def ratio(values: Iterable[float]) -> dict[str, float]:
        taken = list(values)
        named = {"median": statistics.median(taken), "least": min(taken), "most": max(taken)}
        return {name: round(value, 2) for name, value in named.items()}

    pairs = [(one, _TWO_STEPS) for one in (_ONE_STEP, MODEL_ID)]
    return {
        "requests_per_second": {name: round(statistics.median(rate(each, name) for each in rounds)) for name in _ASKED},
        "mean_latency_ms": {name: round(statistics.median(mean(each, name) for each in rounds), 3) for name in _ASKED},
        "ratios": {
            f"requests/s of {one}, to {two}": ratio(rate(each, one) / rate(each, two) for each in rounds)
            for one, two in pairs
        }
        | {
            f"mean latency of {two}, to {one}": ratio(mean(each, two) / mean(each, one) for each in rounds)
            for one, two in pairs
        },
    }


def measure(transport: str, hops: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the figures of one shape of the services.

    Args:
        transport: transport of the services.
        hops: 2 for a frontend and a predictor, 1 for both in one process.
        rounds: number of rounds.
        seconds: duration of each run.
    """
    with tempfile.TemporaryDirectory(prefix="intent-bench-") as folder:
        workplace = Path(folder)
        write_models(workplace / "models")
        system = Ours(name="pipelines", title="pipelines", hops=hops, transport=transport)
        with system.serve(workplace / "models", workplace, predict_call) as running:
            calls = {name: predict_call(running.predict.address, model_id=name) for name in _ASKED}
            for call in calls.values():
                ask(call)
            with Progress(disable=not sys.stderr.isatty(), transient=True) as progress:
                numbers = progress.track(range(rounds), description=f"{hops} processes")
                # Every second round in the reverse order: drift of the machine then affects all alike.
                ordered = (dict(list(calls.items())[:: -1 if number % 2 else 1]) for number in numbers)
                return figures([measured(each, workplace, seconds) for each in ordered])


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
        if _ONE_STEP in name and ratio["median"] > bounds[name.partition(" ")[0]]
    ]
    raise SystemExit("\n".join(missed) or 0)


if __name__ == "__main__":
    main()
