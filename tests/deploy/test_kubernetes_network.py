"""Connections that the NetworkPolicies allow: those that no policy of either side forbids."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from frontend.routing.routes import parse_routes
from tests.deploy.manifests import (
    DEFAULT_NAMESPACE,
    MODEL_SERVICE,
    SINGLE_PROCESS,
    Manifests,
    Pod,
    render,
    render_with,
    selects,
)

Direction = Literal["Ingress", "Egress"]


@dataclass(frozen=True)
class Peer:
    """One end of a connection, inside or outside the cluster."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    address: str = "10.0.0.1"


def peer(pod: Pod) -> Peer:
    return Peer(pod.namespace, pod.labels, {"kubernetes.io/metadata.name": pod.namespace})


def elsewhere(namespace: str, **labels: str) -> Peer:
    """Return a pod of another namespace."""
    return Peer(namespace, {"app": "other"}, {"kubernetes.io/metadata.name": namespace, **labels})


OUTSIDE = Peer(address="203.0.113.7")
DNS = elsewhere("kube-system")
DNS_OF_THE_NODE = Peer(address="169.254.20.10")


def may_talk(manifests: Manifests, source: Peer, target: Peer, number: int, protocol: str = "TCP") -> bool:
    """Return whether the policies let ``source`` open a connection to a port of ``target``."""
    port = {"port": number, "protocol": protocol}
    return _allows(manifests, "Egress", source, target, port) and _allows(manifests, "Ingress", target, source, port)


def _allows(manifests: Manifests, direction: Direction, own: Peer, other: Peer, port: Mapping[str, Any]) -> bool:
    policies = [
        policy
        for policy in manifests.of_kind("NetworkPolicy")
        if policy["metadata"].get("namespace", DEFAULT_NAMESPACE) == own.namespace
        and selects(policy["spec"]["podSelector"], own.labels)
        and direction in policy["spec"]["policyTypes"]
    ]
    peers = {"Ingress": "from", "Egress": "to"}[direction]
    return not policies or any(
        port in rule["ports"] and any(_is_meant(entry, own, other) for entry in rule[peers])
        for policy in policies
        for rule in policy["spec"].get(direction.lower(), [])
    )


def _is_meant(entry: Mapping[str, Any], own: Peer, other: Peer) -> bool:
    if "ipBlock" in entry:
        return ipaddress.ip_address(other.address) in ipaddress.ip_network(entry["ipBlock"]["cidr"])
    if not other.namespace:
        return False
    if "namespaceSelector" in entry:
        return selects(entry["namespaceSelector"], other.namespace_labels) and selects(
            entry.get("podSelector", {}), other.labels
        )
    return other.namespace == own.namespace and selects(entry["podSelector"], other.labels)


@pytest.fixture
def frontend(manifests: Manifests) -> Peer:
    return peer(manifests.pod("frontend"))


@pytest.fixture
def predictor(manifests: Manifests) -> Peer:
    return peer(manifests.pod("predictor"))


@pytest.fixture
def port(manifests: Manifests) -> int:
    return port_named("grpc", manifests)


@pytest.fixture
def metrics(manifests: Manifests) -> int:
    return port_named("metrics", manifests)


def port_named(name: str, manifests: Manifests) -> int:
    (declared,) = [each for each in manifests.pod("predictor").container["ports"] if each["name"] == name]
    return int(declared["containerPort"])


def test_each_service_has_a_policy_of_its_own_for_both_directions(manifests: Manifests) -> None:
    selected = {
        policy["metadata"]["name"]: (
            manifests.selected_by(policy["spec"]["podSelector"]),
            policy["spec"]["policyTypes"],
        )
        for policy in manifests.of_kind("NetworkPolicy")
    }
    both = ["Ingress", "Egress"]
    assert selected == {
        "frontend": (["frontend"], both),
        "predictor": (["predictor"], both),
        "metrics": (["frontend", "predictor"], ["Ingress"]),
    }


def test_only_frontends_reach_predictors(manifests: Manifests, frontend: Peer, predictor: Peer, port: int) -> None:
    assert may_talk(manifests, frontend, predictor, port)
    assert not may_talk(manifests, frontend, predictor, port + 1)
    for other in (
        replace(frontend, labels={"app": "other"}),
        predictor,
        elsewhere("callers", **{"example.org/calls-intent-serving": "true"}),
        replace(frontend, namespace="elsewhere", namespace_labels={"kubernetes.io/metadata.name": "elsewhere"}),
        OUTSIDE,
    ):
        assert not may_talk(manifests, other, predictor, port)


def test_predictors_reach_nobody(manifests: Manifests, frontend: Peer, predictor: Peer, port: int) -> None:
    for target in (frontend, replace(predictor, labels={"app": "other"}), DNS, DNS_OF_THE_NODE, OUTSIDE):
        for number in (port, 53, 443):
            assert not may_talk(manifests, predictor, target, number)


@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
@pytest.mark.parametrize("names", [DNS, DNS_OF_THE_NODE], ids=["cluster", "node"])
def test_frontends_can_look_up_the_predictors(manifests: Manifests, frontend: Peer, names: Peer, protocol: str) -> None:
    assert may_talk(manifests, frontend, names, 53, protocol)


def test_frontends_reach_nobody_else(manifests: Manifests, frontend: Peer) -> None:
    for target in (DNS, elsewhere("callers"), replace(frontend, labels={"app": "other"}), OUTSIDE):
        assert not may_talk(manifests, frontend, target, 443)


def test_callers_reach_frontends_on_their_port_only(manifests: Manifests, frontend: Peer, port: int) -> None:
    caller = elsewhere("callers", **{"example.org/calls-intent-serving": "true"})
    assert may_talk(manifests, caller, frontend, port)
    assert not may_talk(manifests, caller, frontend, port + 1)
    assert not may_talk(manifests, OUTSIDE, frontend, port)


def test_the_base_takes_every_caller_of_the_cluster_and_the_example_those_of_labelled_namespaces(port: int) -> None:
    for name, taken in (("base", True), ("overlays/example", False)):
        manifests = render(name)
        assert may_talk(manifests, elsewhere("anyone"), peer(manifests.pod("frontend")), port) is taken


@pytest.mark.parametrize("service", ["frontend", "predictor"])
def test_prometheus_alone_reaches_metrics_and_nothing_else(
    manifests: Manifests, service: str, port: int, metrics: int
) -> None:
    target = peer(manifests.pod(service))
    prometheus = elsewhere("monitoring")
    assert may_talk(manifests, prometheus, target, metrics)
    assert not may_talk(manifests, elsewhere("callers"), target, metrics)
    assert not may_talk(manifests, peer(manifests.pod("frontend")), target, metrics)
    assert not may_talk(manifests, OUTSIDE, target, metrics)
    assert service == "frontend" or not may_talk(manifests, prometheus, target, port)


def test_one_process_is_reached_by_callers_and_reaches_nobody(port: int, metrics: int) -> None:
    manifests = render(SINGLE_PROCESS)
    service = peer(manifests.pod(MODEL_SERVICE))
    assert may_talk(manifests, elsewhere("callers"), service, port)
    assert not may_talk(manifests, OUTSIDE, service, port)
    assert not may_talk(manifests, elsewhere("callers"), service, metrics)
    assert may_talk(manifests, elsewhere("monitoring"), service, metrics)
    for target in (service, DNS, DNS_OF_THE_NODE, OUTSIDE):
        for number in (port, 53, 443):
            assert not may_talk(manifests, service, target, number)


@pytest.mark.parametrize("shape", ["base", SINGLE_PROCESS])
def test_with_traces_every_service_reaches_the_collector_and_nobody_else(shape: str) -> None:
    before, manifests = render(shape), render_with("components/traces", shape)
    for pod in manifests.pods():
        collector, _, number = pod.variables[f"INTENT_{pod.name.replace('-', '_').upper()}_TRACE_ENDPOINT"].partition(
            ":"
        )
        target = elsewhere(collector.partition(".")[2])
        assert may_talk(manifests, peer(pod), target, int(number))
        assert not may_talk(before, peer(pod), target, int(number))
        assert not may_talk(manifests, peer(pod), target, 443)
        assert not may_talk(manifests, peer(pod), OUTSIDE, int(number))
        for names in (DNS, DNS_OF_THE_NODE):
            assert may_talk(manifests, peer(pod), names, 53, "UDP")


def test_with_engines_frontends_reach_them_and_predictors_do_not() -> None:
    manifests = render_with("components/engines")
    frontend, predictor = (peer(manifests.pod(name)) for name in ("frontend", "predictor"))
    routes = parse_routes(manifests.pod("frontend").variables["INTENT_FRONTEND_ROUTES"])
    host, _, number = routes["intent-triton"].address.partition(":")
    engine = elsewhere(host.partition(".")[2])
    for each in (int(number), 7070, 7071):
        assert may_talk(manifests, frontend, engine, each)
        assert not may_talk(manifests, predictor, engine, each)
        assert not may_talk(render("base"), frontend, engine, each)
        assert not may_talk(manifests, frontend, OUTSIDE, each)
    assert not may_talk(manifests, frontend, engine, 443)


@pytest.mark.parametrize(("shape", "service"), [("base", "frontend"), (SINGLE_PROCESS, MODEL_SERVICE)])
def test_the_ingress_controller_reaches_the_service_of_the_callers_where_callers_are_restricted(
    shape: str, service: str, port: int, metrics: int
) -> None:
    manifests = render_with("components/ingress", shape)
    pod, controller = peer(manifests.pod(service)), elsewhere("ingress-nginx")
    policies = [each for each in manifests.objects if each["metadata"]["name"] != "frontend"]
    restricted = Manifests([each for each in policies if each["kind"] == "NetworkPolicy"])
    assert may_talk(restricted, controller, pod, port)
    assert not may_talk(restricted, elsewhere("callers"), pod, port)
    assert not may_talk(restricted, controller, pod, metrics)
    assert shape == SINGLE_PROCESS or not may_talk(manifests, controller, peer(manifests.pod("predictor")), port)
