"""Pods have time to drain, are replaced one by one, and spread; autoscaler and disruption budget select these pods."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from frontend.engines.replicas import FRESH_SECONDS
from tests.deploy.manifests import EACH_POD, Manifests

# Time beyond delay and grace: for callers that ignore the health status, calls that just arrived, and the process exit.
STEPS_OF_DRAIN_SECONDS = 10

# How long the DNS service of a cluster caches a name.
NAME_SECONDS = 30


@EACH_POD
def test_a_service_ends_by_itself_before_it_is_killed(
    manifests: Manifests, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = manifests.pod(service)
    settings = pod.settings(tmp_path, monkeypatch)
    drain = settings.drain_delay_seconds + settings.drain_grace_seconds
    assert pod.spec["terminationGracePeriodSeconds"] >= drain + STEPS_OF_DRAIN_SECONDS
    assert settings.drain_delay_seconds > 0
    # A call that sets no deadline and arrives together with the signal still gets its full time.
    assert drain >= settings.default_deadline_seconds
    # The service drains itself: a hook before the signal would use up the same time.
    assert "lifecycle" not in pod.container


def test_the_next_predictor_is_replaced_once_frontends_know_the_new_one(manifests: Manifests) -> None:
    spec = manifests.pod("predictor").deployment["spec"]
    assert FRESH_SECONDS + NAME_SECONDS <= spec["minReadySeconds"] <= 60


@EACH_POD
def test_a_rollout_takes_no_pod_away_before_another_is_ready(manifests: Manifests, service: str) -> None:
    strategy = manifests.one("Deployment", service)["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@EACH_POD
def test_a_deployment_means_its_own_pods(manifests: Manifests, service: str) -> None:
    assert manifests.selected_by(manifests.one("Deployment", service)["spec"]["selector"]) == [service]


@EACH_POD
def test_the_autoscaler_alone_says_how_many_pods_there_are(manifests: Manifests, service: str) -> None:
    spec = manifests.one("HorizontalPodAutoscaler", service)["spec"]
    target = manifests.one(spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
    assert target["apiVersion"] == spec["scaleTargetRef"]["apiVersion"]
    assert target["metadata"]["name"] == service
    assert "replicas" not in target["spec"]
    assert 2 <= spec["minReplicas"] < spec["maxReplicas"]
    (metric,) = spec["metrics"]
    # Utilization is a share of the request. Memory is full by design.
    assert metric["resource"]["name"] == "cpu"
    assert metric["resource"]["target"]["type"] == "Utilization"
    assert "cpu" in manifests.pod(service).container["resources"]["requests"]


@EACH_POD
def test_disruptions_take_one_pod_at_a_time_and_are_possible(manifests: Manifests, service: str) -> None:
    budget = manifests.one("PodDisruptionBudget", service)["spec"]
    assert manifests.selected_by(budget["selector"]) == [service]
    least = manifests.one("HorizontalPodAutoscaler", service)["spec"]["minReplicas"]
    assert 1 == budget["maxUnavailable"] < least


@EACH_POD
def test_pods_spread_over_zones_and_nodes_and_start_where_that_cannot_be(manifests: Manifests, service: str) -> None:
    spread = manifests.pod(service).spec["topologySpreadConstraints"]
    assert {each["topologyKey"] for each in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    for each in spread:
        assert manifests.selected_by(each["labelSelector"]) == [service]
        assert each["whenUnsatisfiable"] == "ScheduleAnyway"
        # Pods that a rollout is about to remove do not count.
        assert each["matchLabelKeys"] == ["pod-template-hash"]


def test_no_two_pods_are_alike_to_selectors(manifests: Manifests) -> None:
    for one, other in itertools.permutations(manifests.pods(), 2):
        assert not one.labels.items() <= other.labels.items()
