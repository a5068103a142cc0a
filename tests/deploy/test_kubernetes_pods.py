"""Pods have only the permissions that they need: Kubernetes' "restricted" standard, and restrictions beyond it."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.manifests import EACH_POD, SERVICES, Manifests, bytes_of, dockerfile, render

BOTH = pytest.mark.parametrize("service", SERVICES)


@EACH_POD
def test_the_user_is_not_root_and_the_one_of_the_image(manifests: Manifests, service: str) -> None:
    pod = manifests.pod(service)
    context = {**pod.spec["securityContext"], **pod.container["securityContext"]}
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    (user,) = re.findall(r"^USER (\S+)", dockerfile(service), re.MULTILINE)
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"


@EACH_POD
def test_the_root_file_system_is_read_only_and_only_temporary_files_can_be_written(
    manifests: Manifests, service: str
) -> None:
    pod = manifests.pod(service)
    assert pod.container["securityContext"]["readOnlyRootFilesystem"] is True
    writable = {each["mountPath"] for each in pod.container["volumeMounts"] if not each.get("readOnly")}
    assert writable - {"/models"} == {"/tmp"}  # noqa: S108 - the container's own
    _, volume = pod.volume_at("/tmp")  # noqa: S108
    assert bytes_of(volume["emptyDir"]["sizeLimit"]) > 0


@EACH_POD
def test_a_process_has_no_capability_and_cannot_gain_any(manifests: Manifests, service: str) -> None:
    pod = manifests.pod(service)
    context = pod.container["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["allowPrivilegeEscalation"] is False
    assert "privileged" not in context
    assert pod.spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec)
    assert all("hostPort" not in port for port in pod.container["ports"])


@EACH_POD
def test_a_pod_has_no_token_for_the_cluster(manifests: Manifests, service: str) -> None:
    assert manifests.pod(service).spec["automountServiceAccountToken"] is False


@EACH_POD
def test_volumes_are_of_kinds_that_the_restricted_standard_allows(manifests: Manifests, service: str) -> None:
    kinds = {kind for volume in manifests.pod(service).spec["volumes"] for kind in volume if kind != "name"}
    assert kinds == {"persistentVolumeClaim", "emptyDir"}


def test_the_namespace_of_the_example_admits_only_pods_of_the_restricted_standard() -> None:
    (namespace,) = render("overlays/example").of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@EACH_POD
def test_what_a_pod_may_use_is_asked_for_and_limited(manifests: Manifests, service: str) -> None:
    resources = manifests.pod(service).container["resources"]
    for name in ("cpu", "memory"):
        assert name in resources["requests"]
        assert name in resources["limits"]


@BOTH
def test_the_image_is_the_one_that_compose_builds(service: str) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    image = render("base").pod(service).container["image"]
    assert compose["services"][service]["image"].partition(":")[0] == image


@BOTH
def test_the_example_names_a_registry_and_a_version(service: str) -> None:
    name, _, tag = render("overlays/example").pod(service).container["image"].rpartition(":")
    assert name == f"registry.example.org/intent-{service}"
    assert tag[0].isdigit()
