"""Prometheus finds the metrics of every pod, by annotations or by its operator, under the names that alerts use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.manifests import EACH_POD, MODEL_SERVICE, SERVICES, SINGLE_PROCESS, Manifests, render_with, selects
from tests.deploy.observability import loaded


@EACH_POD
def test_annotations_name_the_port_that_metrics_are_at(
    manifests: Manifests, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = manifests.pod(service)
    port = pod.settings(tmp_path, monkeypatch).metrics_port
    assert pod.deployment["spec"]["template"]["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port),
        "prometheus.io/path": "/metrics",
    }


def test_no_service_of_the_cluster_offers_them(manifests: Manifests) -> None:
    for service in manifests.of_kind("Service"):
        assert [port["name"] for port in service["spec"]["ports"]] == ["grpc"]


@pytest.mark.parametrize(
    ("shape", "service"), [*(("base", name) for name in SERVICES), (SINGLE_PROCESS, MODEL_SERVICE)]
)
def test_the_operator_finds_every_pod_and_names_its_job_as_compose_does(shape: str, service: str) -> None:
    manifests = render_with("components/pod-monitor", shape)
    spec = manifests.one("PodMonitor", "intent-serving")["spec"]
    pod = manifests.pod(service)
    assert selects(spec["selector"], pod.labels)
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["port"] in [port["name"] for port in pod.container["ports"]]
    (relabeling,) = endpoint["relabelings"]
    assert relabeling["targetLabel"] == "job"
    # The pod label, as Prometheus spells its name.
    (label,) = relabeling["sourceLabels"]
    assert label == "__meta_kubernetes_pod_label_app_kubernetes_io_component"
    assert pod.labels["app.kubernetes.io/component"] in {
        each["job_name"] for each in loaded("prometheus.yml")["scrape_configs"]
    }
