"""Several predictors hold several times as many models: measured against the same predictors, queried in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.tenants import load_directly, make_tenants
from tests.conftest import ROOT
from tests.end_to_end.containers.compose import PUBLISHED, compose_stack, published_address, residency_of
from tests.end_to_end.containers.load import ROUND_ROBIN, Callers, channel_to

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

REPLICAS = 3
MODELS = 600
ROOM = 250
"""Number of models that fit into the memory of one predictor."""

# So many partitions that chance gives no predictor more models than it has room for.
EVEN = {"services": {"frontend": {"environment": {"INTENT_FRONTEND_PARTITIONS": "2048"}}}}


async def test_three_predictors_hold_what_none_of_them_could(
    images: None, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    volume = tmp_path / "models"
    model_ids = make_tenants(ROOT / "models" / "clinc150-banking", volume, tenants=MODELS, models=5)
    size = max(model.size for model in load_directly(volume, model_ids[:5]).values())
    environment = {"INTENT_PREDICTOR_MODEL_MEMORY": str(size * ROOM + size // 2)}
    scale = ("--scale", f"predictor={REPLICAS}")
    overrides = {"services": EVEN["services"] | PUBLISHED["services"]}
    with compose_stack(volume, tmp_path, *scale, environment=environment, overrides=overrides) as stack:
        predictors = stack.containers("predictor")
        async with channel_to([stack.address]) as channel:
            by_the_frontend = await hit_rate(Callers(channel, model_ids), predictors)
        async with channel_to([published_address(name) for name in predictors], ROUND_ROBIN) as channel:
            in_turn = await hit_rate(Callers(channel, model_ids, predictors=True), predictors)

    figure(f"hit rate with {REPLICAS} x {ROOM} of {MODELS} models: {by_the_frontend:.1%}, in turn {in_turn:.1%}")
    assert by_the_frontend >= 0.99
    # A predictor that is queried for all models has room for only some of them.
    assert in_turn < 0.6


async def hit_rate(callers: Callers, predictors: Sequence[str]) -> float:
    """Query every model once and then several times more; return the hit rate of the later queries."""
    first = await callers.ask_each()
    before = residency_of(predictors, limit=1)
    again = await callers.ask_each(times=5)
    after = residency_of(predictors, limit=1)
    assert (first.failures, again.failures, first.wrong, again.wrong) == ({}, {}, [], [])
    hits, misses = (
        sum(after[name].counters[kind] - before[name].counters[kind] for name in predictors)
        for kind in ("hits", "misses")
    )
    return hits / (hits + misses)
