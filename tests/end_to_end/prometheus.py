"""A real Prometheus for tests: the project's own configuration with other addresses and shorter intervals."""

from __future__ import annotations

import json
import math
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.builders import free_port
from tests.deploy.observability import OBSERVABILITY, loaded, tool_of_prometheus

START_SECONDS: Final = 60.0
INTERVAL: Final = "1s"
STEP_SECONDS: Final = 2


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus, queried over HTTP as Grafana queries it."""

    address: str

    def query(self, expression: str) -> Sequence[Mapping[str, Any]]:
        """Return the current result of the expression: series with their labels, each with one value."""
        found: Sequence[Mapping[str, Any]] = self._asked("query", query=expression)["result"]
        return found

    def values(self, expression: str) -> list[float]:
        """Return only the values of the expression, without those that are not numbers."""
        values = [float(series["value"][1]) for series in self.query(expression)]
        return [value for value in values if not math.isnan(value)]

    def values_within(self, expression: str, start: float, end: float) -> list[float]:
        """Return the values of all series from ``start`` to ``end``, in seconds since 1970, as a panel draws them."""
        found = self._asked("query_range", query=expression, start=start, end=end, step=STEP_SECONDS)
        values = [float(value) for series in found["result"] for _, value in series["values"]]
        return [value for value in values if not math.isnan(value)]

    def rules(self) -> Sequence[Mapping[str, Any]]:
        """Return every rule with the result of its last evaluation."""
        return [rule for group in self._asked("rules")["groups"] for rule in group["rules"]]

    def alerts(self) -> dict[str, set[str]]:
        """Return the alerts whose conditions hold, by name, each with its states: pending, firing."""
        states: dict[str, set[str]] = {}
        for alert in self._asked("alerts")["alerts"]:
            states.setdefault(alert["labels"]["alertname"], set()).add(alert["state"])
        return states

    def targets(self) -> dict[str, str]:
        """Return the health of each job's target."""
        found = self._asked("targets")["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in found}

    def _asked(self, what: str, **parameters: object) -> Any:
        url = f"http://{self.address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error


def configuration(targets: Mapping[str, str], rules: Path) -> dict[str, Any]:
    """Return the deployed configuration with addresses of this machine instead of names to look up.

    Args:
        targets: address of each job's metrics; jobs that are not named have no target.
        rules: folder of the rule files.
    """
    written: dict[str, Any] = loaded("prometheus.yml")
    written["global"] = {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
    written["rule_files"] = [str(rules / name) for name in written["rule_files"]]
    for job in written["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        address = targets.get(job["job_name"])
        job["static_configs"] = [] if address is None else [{"targets": [address]}]
    return written


@contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes ``targets`` by job; yield it ready, and end it after the block."""
    address = f"127.0.0.1:{free_port()}"
    configured = folder / "prometheus.yml"
    configured.write_text(yaml.safe_dump(configuration({**targets, "prometheus": address}, OBSERVABILITY)))
    command = [
        tool_of_prometheus("prometheus"),
        f"--config.file={configured}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_ready(process, address, folder / "prometheus.log")
        yield Prometheus(address)
    finally:
        process.terminate()
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    given_up = time.monotonic() + START_SECONDS
    while time.monotonic() < given_up:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"Prometheus is not ready: {log.read_text()}")
