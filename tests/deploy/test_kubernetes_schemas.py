"""Kubernetes accepts deploy/kubernetes: each object is checked against the published schemas of each version."""

from __future__ import annotations

import copy

import kubernetes_validate  # type: ignore[import-untyped]  # the package has no types
import pytest
import yaml

from tests.deploy.manifests import (
    COMPONENTS,
    COMPONENTS_OF_FRONTENDS,
    EACH_SHAPE,
    JOB,
    KUBERNETES,
    KUSTOMIZATIONS,
    SHARED_OBJECTS,
    SINGLE_PROCESS,
    render,
    render_with,
)

VERSIONS = ("1.27", "1.28", "1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
"""Versions from the first with stable gRPC probes, which docs/kubernetes.md names, to the last one published."""


ALL = (*KUSTOMIZATIONS, SINGLE_PROCESS, SHARED_OBJECTS, JOB)
ALL_COMPONENTS = (*COMPONENTS, *COMPONENTS_OF_FRONTENDS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kustomization", ALL)
def test_every_object_is_what_this_version_of_kubernetes_takes(kustomization: str, version: str) -> None:
    for each in render(kustomization).objects:
        # The validator must use the schema of this version, not of one close to it.
        assert kubernetes_validate.validate(each, version, strict=True) == version


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
@EACH_SHAPE
def test_every_object_is_taken_with_a_component_too(shape: str, component: str, version: str) -> None:
    for each in render_with(component, shape).objects:
        # The operator's own kinds are in no Kubernetes schema.
        if "monitoring.coreos.com" not in each["apiVersion"]:
            assert kubernetes_validate.validate(each, version, strict=True) == version


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_a_field_that_does_not_exist_would_be_found(version: str) -> None:
    deployment = copy.deepcopy(render("base").one("Deployment", "predictor"))
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 50
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, version, strict=True)


def test_the_newest_schemas_are_among_those_that_are_looked_at() -> None:
    assert kubernetes_validate.latest_version().startswith(VERSIONS[-1])


def test_every_kustomization_is_tested_and_every_file_belongs_to_one() -> None:
    found = {path.parent.relative_to(KUBERNETES).as_posix() for path in KUBERNETES.rglob("kustomization.yaml")}
    assert found == {*ALL, *ALL_COMPONENTS}
    used = set()
    for name in found:
        folder = KUBERNETES / name
        used.add(folder / "kustomization.yaml")
        written = yaml.safe_load((folder / "kustomization.yaml").read_text())
        used |= {(folder / each).resolve() for each in written.get("resources", [])}
        used |= {(folder / each["path"]).resolve() for each in written.get("patches", [])}
    assert {path for path in KUBERNETES.rglob("*") if path.is_file()} == {path for path in used if path.is_file()}


@pytest.mark.parametrize("kustomization", ["overlays/example", "overlays/example-writable", JOB])
def test_all_objects_of_the_overlay_are_in_its_namespace(kustomization: str) -> None:
    for each in render(kustomization).objects:
        if each["kind"] not in ("Namespace", "PersistentVolume"):
            assert each["metadata"]["namespace"] == "intent-serving"
