"""The services accept the settings of their containers, and ports and names agree throughout."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from frontend.engines.replicas import may_be_several
from frontend.routing.routes import parse_routes
from frontend.settings import FrontendSettings
from predictor.cache.memory import default_budget
from predictor.settings import PredictorSettings
from serving.runtime.settings import variables_of
from tests.conftest import ROOT
from tests.deploy.manifests import EACH_POD, SETTINGS, Manifests, bytes_of, render


@EACH_POD
def test_every_variable_is_a_setting_and_its_value_is_taken(
    manifests: Manifests, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = manifests.pod(service)
    assert set(pod.variables) <= variables_of(SETTINGS[service])
    pod.settings(tmp_path, monkeypatch)
    # Otherwise, Services of the namespace add variables such as INTENT_..._PORT.
    assert pod.spec["enableServiceLinks"] is False


@EACH_POD
def test_the_port_is_the_same_for_server_probes_and_service(
    manifests: Manifests, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = manifests.pod(service)
    settings = pod.settings(tmp_path, monkeypatch)
    port = settings.port
    container = pod.container
    declared = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert declared == {"grpc": port, "metrics": settings.metrics_port}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"]["port"] == port
    (offered,) = manifests.service_of(service)["spec"]["ports"]
    assert offered["targetPort"] == container["ports"][0]["name"]
    assert offered["port"] == port


@EACH_POD
def test_others_can_reach_what_it_listens_on(
    manifests: Manifests, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = manifests.pod(service).settings(tmp_path, monkeypatch).host
    assert ipaddress.ip_address(host).is_unspecified


@EACH_POD
def test_models_are_looked_for_where_the_volume_is_mounted_and_cannot_be_written(
    manifests: Manifests, service: str
) -> None:
    pod = manifests.pod(service)
    mount, volume = pod.volume_at(pod.variables["MODEL_DIR"])
    if volume["persistentVolumeClaim"]["claimName"] == "models-writable":
        assert service == "frontend"
        return
    assert mount["readOnly"] is True
    assert volume["persistentVolumeClaim"]["readOnly"] is True
    claim = manifests.one("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
    assert claim["spec"]["accessModes"] == ["ReadOnlyMany"]


def test_the_route_is_the_name_of_all_ready_predictors(
    manifests: Manifests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = manifests.pod("frontend").settings(tmp_path, monkeypatch)
    assert isinstance(settings, FrontendSettings)
    engine = parse_routes(settings.routes)["intent-classification"]
    # The gRPC ring is used for a route that may resolve to several replicas.
    assert may_be_several(engine.address)
    scheme, _, host = engine.address.rpartition("/")
    name, _, port = host.partition(":")
    service = manifests.one("Service", name)
    assert scheme == "dns://"
    assert service["metadata"].get("namespace") == manifests.one("Deployment", "frontend")["metadata"].get("namespace")
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is False
    assert [each["port"] for each in service["spec"]["ports"]] == [int(port)]
    assert manifests.selected_by({"matchLabels": service["spec"]["selector"]}) == ["predictor"]


def test_callers_reach_the_frontends_and_nothing_else(manifests: Manifests) -> None:
    service = manifests.one("Service", "frontend")
    assert manifests.selected_by({"matchLabels": service["spec"]["selector"]}) == ["frontend"]
    assert {each["metadata"]["name"] for each in manifests.of_kind("Service")} == {"frontend", "predictor"}
    assert service["spec"]["type"] == "ClusterIP"


def test_the_memory_for_models_follows_from_the_limit_of_the_container(
    manifests: Manifests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = manifests.pod("predictor")
    settings = pod.settings(tmp_path, monkeypatch)
    assert isinstance(settings, PredictorSettings)
    assert settings.model_memory == 0
    memory = {name: each["memory"] for name, each in pod.container["resources"].items()}
    # The memory will be used, so the request is all of it.
    assert memory["requests"] == memory["limits"]
    limit = bytes_of(memory["limits"])
    told = f"{limit / 2**30:.0f} GiB leaves {default_budget(limit) / 2**30:.1f} GiB for models"
    assert told in " ".join((ROOT / "docs" / "kubernetes.md").read_text().split())


@pytest.mark.parametrize(
    ("overlay", "name"),
    [
        ("overlays/example", "models"),
        ("overlays/example-writable", "models"),
        ("overlays/example-writable", "models-writable"),
    ],
)
def test_the_example_binds_the_claim_to_its_volume(overlay: str, name: str) -> None:
    example = render(overlay)
    claim = example.one("PersistentVolumeClaim", name)
    volume = example.one("PersistentVolume", claim["spec"]["volumeName"])
    assert volume["spec"]["claimRef"] == {
        "namespace": claim["metadata"]["namespace"],
        "name": claim["metadata"]["name"],
    }
    # An empty class, not a missing one: the default class of a cluster would provision a new volume.
    assert (claim["spec"]["storageClassName"], volume["spec"]["storageClassName"]) == ("", "")
    assert set(claim["spec"]["accessModes"]) <= set(volume["spec"]["accessModes"])
    asked = bytes_of(claim["spec"]["resources"]["requests"]["storage"])
    assert asked <= bytes_of(volume["spec"]["capacity"]["storage"])
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    writable = name == "models-writable"
    assert ("ro" in volume["spec"]["mountOptions"]) is not writable
    assert volume["spec"]["nfs"].get("readOnly", False) is not writable


def test_both_volumes_of_the_writable_example_are_the_same_folder() -> None:
    volumes = [each["spec"]["nfs"] for each in render("overlays/example-writable").of_kind("PersistentVolume")]
    assert len(volumes) == 2
    assert len({(volume["server"], volume["path"]) for volume in volumes}) == 1
