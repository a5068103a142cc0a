"""Prometheus accepts the rules, each alert fires only on its condition, and each has a section in the runbook."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.observability import OBSERVABILITY, RUNBOOK, loaded, metrics_in, promtool, rules_of

ALERTS = {rule["alert"]: rule for rule in rules_of("alerts.yml")}
SEVERITIES = {"critical", "warning", "info"}


def test_prometheus_takes_its_configuration_and_the_rules() -> None:
    checked = promtool("check", "config", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for name, rules in (("alerts.yml", ALERTS), ("recording.yml", rules_of("recording.yml"))):
        assert (OBSERVABILITY / name).name in loaded("prometheus.yml")["rule_files"]
        assert f"{len(rules)} rules found" in checked.stdout


@pytest.mark.slow
def test_each_alert_fires_for_what_it_is_for_and_for_nothing_else() -> None:
    tested = promtool("test", "rules", "alerts_test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.slow
def test_an_alert_that_never_fires_would_be_found(tmp_path: Path) -> None:
    alert = "IntentForbiddenPickle"
    for name in ("recording.yml", "alerts_test.yml"):
        shutil.copy(OBSERVABILITY / name, tmp_path)
    rules = loaded("alerts.yml")
    (rule,) = [rule for group in rules["groups"] for rule in group["rules"] if rule["alert"] == alert]
    rule["expr"] = "vector(0) > 1"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))

    tested = promtool("test", "rules", "alerts_test.yml", folder=tmp_path)

    assert tested.returncode == 1
    assert alert in tested.stdout + tested.stderr


def test_every_alert_is_tested_to_fire() -> None:
    fired = {
        re.search(r'alertname="(\w+)"', sample["labels"])[1]  # type: ignore[index]  # every sample has one
        for test in loaded("alerts_test.yml")["tests"]
        for expected in test.get("promql_expr_test", [])
        for sample in expected["exp_samples"]
        if sample["labels"].startswith("ALERTS")
    }
    assert fired == set(ALERTS)


def test_all_that_alerts_look_at_is_there_where_nothing_fires() -> None:
    healthy: dict[str, Any] = loaded("alerts_test.yml")["tests"][0]
    there = {series["series"].partition("{")[0] for series in healthy["input_series"]}
    recorded = {rule["record"] for rule in rules_of("recording.yml")}
    looked_at = {metric for rule in ALERTS.values() for metric in metrics_in(rule["expr"])} - recorded
    assert looked_at
    assert looked_at <= there
    assert all(not expected["exp_samples"] for expected in healthy["promql_expr_test"] if "ALERTS" in expected["expr"])


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["description"].endswith(".")
    assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{alert.lower()}"


def test_the_runbook_has_a_section_for_each_alert_and_for_no_other() -> None:
    assert [*sections()] == [*ALERTS]


@pytest.mark.parametrize("alert", ALERTS)
def test_a_section_of_the_runbook_says_what_it_means_what_to_look_at_and_what_to_do(alert: str) -> None:
    section = sections().get(alert, "")
    for part in ("**Means.**", "**Look.**", "**Do.**"):
        assert section.count(part) == 1
    severity = ALERTS[alert]["labels"]["severity"]
    assert section.lstrip().startswith(severity)


def sections() -> dict[str, str]:
    """Return the text below each heading that is the name of an alert."""
    found = re.split(r"^### (Intent\w+)\n", RUNBOOK.read_text(), flags=re.MULTILINE)
    return {
        name: re.split(r"^## ", text, flags=re.MULTILINE)[0]
        for name, text in zip(found[1::2], found[2::2], strict=True)
    }
