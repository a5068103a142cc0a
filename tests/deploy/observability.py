"""Files of deploy/observability, and the tools of Prometheus that check them."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.conftest import ROOT

OBSERVABILITY: Final = ROOT / "deploy" / "observability"
DASHBOARD: Final = OBSERVABILITY / "grafana" / "dashboards" / "intent-serving.json"
RUNBOOK: Final = ROOT / "docs" / "operations.md"

_METRIC: Final = re.compile(r"\b((?:intent|process|python)_[a-z_]+(?=[{\s\[)]|$)|up(?={))")


def tool_of_prometheus(name: str) -> str:
    """Return ``prometheus`` or ``promtool``, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on the PATH; Debian's package prometheus has it")
    return found


def promtool(*arguments: str, folder: Path = OBSERVABILITY) -> subprocess.CompletedProcess[str]:
    """Run promtool in ``folder``."""
    command = [tool_of_prometheus("promtool"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, cwd=folder)


def loaded(name: str) -> Any:
    """Return the parsed YAML file ``name`` of deploy/observability."""
    return yaml.safe_load((OBSERVABILITY / name).read_text())


def rules_of(name: str) -> Sequence[Mapping[str, Any]]:
    """Return the rules of all groups of a file."""
    return [rule for group in loaded(name)["groups"] for rule in group["rules"]]


@dataclass(frozen=True)
class DashboardQuery:
    """Query that one panel or variable sends to Prometheus."""

    panel: str
    expression: str
    """PromQL expression that still contains the variables of the dashboard."""

    def asked(self, window: str = "1m", time_range: str = "1h") -> str:
        """Return the expression as Grafana sends it: for all jobs and replicas, and with these windows."""
        values = {"$__rate_interval": window, "$__range": time_range, "$job": ".*", "$instance": ".*"}
        expression = self.expression
        for variable, value in values.items():
            expression = expression.replace(variable, value)
        return expression


@functools.cache
def dashboard() -> Mapping[str, Any]:
    """Return the dashboard as parsed from its file."""
    read: Mapping[str, Any] = json.loads(DASHBOARD.read_text())
    return read


def dashboard_queries() -> Sequence[DashboardQuery]:
    """Return the query of every target of every panel."""
    return [
        DashboardQuery(panel["title"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    ]


def queries_of_the_runbook() -> Sequence[str]:
    """Return every query that the runbook gives, inline or on a line of its own."""
    text = RUNBOOK.read_text()
    written = re.findall(r"`([^`]+)`", text) + re.findall(r"^    (.*)$", text, re.MULTILINE)
    return sorted({each for each in written if metrics_in(each) and not each.startswith(("curl ", "logs "))})


def metrics_in(expression: str) -> set[str]:
    """Return the names of the metrics that an expression selects."""
    return set(_METRIC.findall(re.sub(r'"[^"]*"', '""', expression)))
