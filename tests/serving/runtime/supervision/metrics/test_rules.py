"""Every metric of a service that may have workers has its rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.runtime.supervision.metrics.rules import GAUGES, RANKED
from tests.conftest import ROOT
from tests.serving.telemetry.test_documented_metrics import everything_of

SERVICES = ("frontend", "model_service")


@pytest.mark.parametrize("service", SERVICES)
async def test_every_gauge_has_a_rule(service: str, tmp_path: Path) -> None:
    told = await everything_of(service, tmp_path)
    gauges = {family.name for family in told.families if family.type == "gauge"}
    assert gauges - GAUGES.keys() == {"intent_build_info"}


async def test_every_rule_is_of_a_metric_that_is_there(tmp_path: Path) -> None:
    names = {family.name for family in (await everything_of("model_service", tmp_path)).families}
    assert not GAUGES.keys() - names
    assert not RANKED.keys() - names


async def test_every_metric_by_model_or_tenant_is_ranked(tmp_path: Path) -> None:
    documented = (ROOT / "docs" / "metrics.md").read_text()
    rows = [line.split("|") for line in documented.splitlines() if line.startswith("| `")]
    names = {
        row[1].strip().strip("`").removesuffix("_total")
        for row in rows
        if len(row) > 4 and {"model", "tenant"} & {label.strip() for label in row[3].split(",")}
    }
    assert names
    assert names == RANKED.keys()
