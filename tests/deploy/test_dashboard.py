"""Grafana and Prometheus accept the dashboard: Grafana's own model reads the file, Prometheus parses the queries."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.conftest import ROOT
from tests.deploy.observability import (
    DASHBOARD,
    OBSERVABILITY,
    dashboard,
    dashboard_queries,
    metrics_in,
    promtool,
    rules_of,
)

WIDTH = 24
PANELS: Sequence[Mapping[str, Any]] = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
ROWS = ("Traffic", "Errors", "Latency", "Queue and batches", "Models in memory", "Memory", "Busiest models", "Releases",
        "Access and quotas", "Processes")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _kinds_of_panels() -> None:
    register_default_plugins()


def unknown_to(model: Any, ours: Any, path: str = "") -> list[str]:
    """Return the paths at which ``ours`` has a key or value that ``model``, made from it, lacks or changes."""
    if isinstance(ours, dict) and isinstance(model, dict):
        missing = [f"{path}/{key}" for key in ours if key not in model]
        return missing + [
            each for key in ours if key in model for each in unknown_to(model[key], ours[key], f"{path}/{key}")
        ]
    if isinstance(ours, list) and isinstance(model, list) and len(ours) == len(model):
        return [each for number, (one, other) in enumerate(zip(model, ours, strict=True))
                for each in unknown_to(one, other, f"{path}/{number}")]  # fmt: skip
    return [] if ours == model else [path]


def read_by_grafana(ours: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(Dashboard.from_json(dict(ours)), cls=JSONEncoder))


def test_grafanas_own_model_knows_every_key_of_it() -> None:
    assert unknown_to(read_by_grafana(dashboard()), dashboard()) == []


def test_a_key_that_grafana_does_not_know_would_be_found() -> None:
    ours = json.loads(DASHBOARD.read_text())
    ours["panels"][1]["options"]["reduceOption"] = {}
    assert unknown_to(read_by_grafana(ours), ours) == ["/panels/1/options/reduceOption"]


def test_it_has_a_row_for_each_side_of_the_services() -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert rows == ["Now", *ROWS]


def test_no_two_panels_have_the_same_place_or_name() -> None:
    placed = [(panel["id"], panel["gridPos"]) for panel in dashboard()["panels"]]
    for _, place in placed:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= WIDTH
    for (_, one), (_, other) in itertools.combinations(placed, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert len({number for number, _ in placed}) == len(placed)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: f"{panel['id']} {panel['title']}")
def test_a_panel_says_what_it_shows_in_which_unit_and_asks_for_something(panel: Mapping[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"].get("unit") or panel["options"]["yAxis"]["unit"]
    references = [target["refId"] for target in panel["targets"]]
    assert references
    assert len(set(references)) == len(references)
    for target in panel["targets"]:
        assert target["expr"]
        assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    # A table shows one moment; a panel with a time axis shows a range.
    assert {target["instant"] for target in panel["targets"]} == {panel["type"] == "table"}
    assert (panel["type"] == "heatmap") == (panel["targets"][0].get("format") == "heatmap")


def test_every_query_is_one_for_prometheus(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query.asked()} for number, query in enumerate(dashboard_queries())]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = promtool("check", "rules", "queries.yml", folder=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_is_chosen_above_the_panels_narrows_every_query() -> None:
    names = [variable["name"] for variable in dashboard()["templating"]["list"]]
    assert names == ["datasource", "job", "instance"]
    for query in dashboard_queries():
        for metric in metrics_in(query.expression):
            selectors = re.findall(rf"\b{metric}(?:_bucket|_sum|_count|_total)?\{{([^}}]*)\}}", query.expression)
            assert selectors, query
            assert all('job=~"$job", instance=~"$instance"' in selector for selector in selectors), query


def test_recorded_series_that_it_shows_are_recorded() -> None:
    recorded = {rule["record"] for rule in rules_of("recording.yml")}
    shown = {name for query in dashboard_queries() for name in re.findall(r"\bintent:\w+:\w+\b", query.expression)}
    assert shown
    assert shown <= recorded


def test_grafana_finds_dashboard_and_prometheus_where_compose_puts_them() -> None:
    provisioning = OBSERVABILITY / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "intent-serving.yml").read_text())["providers"]
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    mounted = dict(volume.split(":")[:2] for volume in compose["grafana"]["volumes"])
    assert mounted["./deploy/observability/grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./deploy/observability/grafana/provisioning"] == "/etc/grafana/provisioning"
    # The port inside the container, whatever port is published.
    assert source["url"] == "http://prometheus:9090"
    (published,) = compose["prometheus"]["ports"]
    assert published.endswith(":9090")
    (chosen,) = [variable for variable in dashboard()["templating"]["list"] if variable["type"] == "datasource"]
    assert chosen["current"]["value"] == source["uid"]
