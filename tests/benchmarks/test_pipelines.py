from __future__ import annotations

from pathlib import Path

from benchmarks.loads.load import Latency, Timed
from benchmarks.loads.workload import MODEL_ID
from benchmarks.pipelines import figures, write_models
from serving.domain.model_id import ModelId
from serving.volume.model_store import ModelStore
from serving.volume.pipelines import check_pipeline


def test_the_pipelines_that_are_measured_are_valid(tmp_path: Path) -> None:
    write_models(tmp_path)
    store = ModelStore(tmp_path)
    for name, steps in (("one-step", 1), ("two-steps", 2)):
        manifest = store.read_manifest(ModelId(name))
        check_pipeline(store, ModelId(name), manifest)
        assert manifest.pipeline is not None
        assert len(manifest.pipeline.steps) == steps


def test_each_ratio_is_taken_within_a_round() -> None:
    def run(rate: float, mean: float) -> Timed:
        return Timed(100, rate, Latency(mean, mean, mean, mean))

    rounds = [
        {
            "throughput": {MODEL_ID: run(90, 1), "one-step": run(60, 1), "two-steps": run(30 * speed, 1)},
            "latency": {MODEL_ID: run(1, 1), "one-step": run(1, 2), "two-steps": run(1, 3)},
        }
        for speed in (1, 2)
    ]
    ratios = figures(rounds)["ratios"]
    assert ratios["requests/s of one-step, to two-steps"] == {"median": 1.5, "least": 1.0, "most": 2.0}
    assert ratios[f"mean latency of two-steps, to {MODEL_ID}"] == {"median": 3, "least": 3, "most": 3}
