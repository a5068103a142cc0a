"""The profile "observability" of docker-compose.yml scrapes every service and is locked down as the services are."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.observability import OBSERVABILITY, loaded

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = ("frontend", "predictor", "model-service")
WATCHERS = ("prometheus", "grafana")


def scraped() -> dict[str, int]:
    """Return the port that Prometheus scrapes, by DNS name."""
    looked_up = [each for job in loaded("prometheus.yml")["scrape_configs"] for each in job.get("dns_sd_configs", [])]
    return {name: each["port"] for each in looked_up for name in each["names"]}


def test_each_service_is_scraped_where_its_metrics_are() -> None:
    told = {
        name: COMPOSE["services"][name]["environment"][f"INTENT_{name.replace('-', '_').upper()}_METRICS_PORT"]
        for name in SERVICES
    }
    assert scraped() == told


def test_a_job_is_named_as_its_service() -> None:
    for job in loaded("prometheus.yml")["scrape_configs"]:
        for each in job.get("dns_sd_configs", []):
            assert each["names"] == [job["job_name"]]


@pytest.mark.parametrize("service", SERVICES)
def test_metrics_are_not_published(service: str) -> None:
    (port,) = set(scraped().values())
    assert all(str(port) not in published for published in COMPOSE["services"][service].get("ports", []))


@pytest.mark.parametrize("service", WATCHERS)
def test_who_watches_is_locked_up_as_the_services_are(service: str) -> None:
    it = COMPOSE["services"][service]
    assert it["profiles"] == ["observability"]
    assert it["read_only"] is True
    assert it["cap_drop"] == ["ALL"]
    assert it["security_opt"] == ["no-new-privileges:true"]
    assert not it["user"].startswith(("0", "root"))
    assert it["mem_limit"]
    assert it["pids_limit"]
    assert "build" not in it
    # A fixed version, so that an operator decides on each update.
    assert re.search(r":v?\d+\.\d+\.\d+$", it["image"])
    # Only a browser on this machine can reach the container.
    assert all(re.fullmatch(r"\$\{INTENT_\w+_ADDRESS:-127\.0\.0\.1:\d+\}:\d+", each) for each in it["ports"])
    # The container has no access to models.
    assert all("/models" not in volume for volume in it["volumes"])


def test_grafana_reaches_prometheus_and_no_service() -> None:
    networks = {name: set(COMPOSE["services"][name].get("networks", ["default"])) for name in (*SERVICES, *WATCHERS)}
    assert networks["grafana"] & networks["prometheus"]
    assert not any(networks["grafana"] & networks[service] for service in SERVICES)


def test_grafana_has_no_password_to_guess_and_no_editor() -> None:
    settings = COMPOSE["services"]["grafana"]["environment"]
    assert settings["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert settings["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert settings["GF_AUTH_BASIC_ENABLED"] == "false"


def test_all_files_that_are_mounted_are_there() -> None:
    for name in WATCHERS:
        for volume in COMPOSE["services"][name]["volumes"]:
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists()
            assert source in COMPOSE["volumes"] or volume.endswith(":ro")
    configured = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())
    mounted = {volume.split(":")[1] for volume in COMPOSE["services"]["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{name}" for name in configured["rule_files"]} <= mounted


def test_models_can_be_written_by_the_frontend_alone_and_only_where_that_is_wanted() -> None:
    access = {name: COMPOSE["services"][name]["volumes"][0].rpartition(":/models:")[2] for name in SERVICES}
    chosen = "${INTENT_MODELS_ACCESS:-ro}"
    assert access == {"frontend": chosen, "model-service": chosen, "predictor": "ro"}
