"""Optional components: what each adds, and that it can be applied to what the base has made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.runtime.settings import variables_of
from tests.access import write_access
from tests.deploy.manifests import EACH_SHAPE, JOB, SETTINGS, SINGLE_PROCESS, render, render_with

BOTH_SHAPES = pytest.mark.parametrize("shape", ["base", SINGLE_PROCESS])


def immutable_parts(each: dict[str, Any]) -> Any:
    """Return the fields of an object that Kubernetes refuses to change."""
    spec = each.get("spec", {})
    match each["kind"]:
        case "PersistentVolumeClaim":
            # Only the size may grow.
            return {name: value for name, value in spec.items() if name != "resources"}
        case "Deployment":
            return spec["selector"]
        case "Service":
            return spec.get("clusterIP")
    return None


@EACH_SHAPE
def test_a_component_can_be_applied_to_what_the_base_has_made(shape: str, component: str) -> None:
    before = {(each["kind"], each["metadata"]["name"]): each for each in render(shape).objects}
    after = {(each["kind"], each["metadata"]["name"]): each for each in render_with(component, shape).objects}
    assert set(before) <= set(after)
    for name, each in before.items():
        assert immutable_parts(after[name]) == immutable_parts(each), name
    assert after != before


@EACH_SHAPE
def test_every_variable_of_a_component_is_a_setting(shape: str, component: str) -> None:
    for pod in render_with(component, shape).pods():
        assert set(pod.variables) <= variables_of(SETTINGS[pod.name])


@BOTH_SHAPES
def test_with_writable_models_the_service_that_callers_use_writes_the_volume_and_predictors_do_not(shape: str) -> None:
    manifests = render_with("components/writable-models", shape)
    for pod in manifests.pods():
        mount, volume = pod.volume_at("/models")
        read_only = pod.name == "predictor"
        assert mount["readOnly"] is read_only
        assert volume["persistentVolumeClaim"] == {
            "claimName": "models" if read_only else "models-writable",
            "readOnly": read_only,
        }
    assert manifests.one("PersistentVolumeClaim", "models-writable")["spec"]["accessModes"] == ["ReadWriteMany"]


@BOTH_SHAPES
def test_the_access_file_comes_from_a_secret_and_is_taken(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = write_access(tmp_path, {})
    (tmp_path / "predictor-credential").write_text("a-key")
    for pod in render_with("components/access", shape).pods():
        mount, volume = pod.volume_at("/access")
        assert mount["readOnly"] is True
        # A file of a Secret that is mounted by ``subPath`` would never be replaced.
        assert "subPath" not in mount
        secret = "predictor-access" if pod.name == "predictor" else "frontend-access"
        assert volume["secret"]["secretName"] == secret
        prefix = f"INTENT_{pod.name.replace('-', '_').upper()}_"
        assert pod.variables[f"{prefix}ACCESS_FILE"] == f"/access/{access.name}"
        with monkeypatch.context() as environment:
            environment.setenv("MODEL_DIR", str(tmp_path))
            for name, value in pod.variables.items():
                if value.startswith("/access/"):
                    environment.setenv(name, value.replace("/access", str(tmp_path), 1))
            assert SETTINGS[pod.name]().access_file == access


@BOTH_SHAPES
def test_every_pod_has_the_pull_secret(shape: str) -> None:
    for pod in render_with("components/image-pull-secret", shape).pods():
        assert pod.spec["imagePullSecrets"] == [{"name": "registry"}]


@BOTH_SHAPES
def test_the_ingress_leads_to_the_service_of_the_callers_as_grpc_and_as_http(shape: str) -> None:
    manifests = render_with("components/ingress", shape)
    found = {}
    for ingress in manifests.of_kind("Ingress"):
        ((rule,), (encrypted,)) = (ingress["spec"]["rules"], ingress["spec"]["tls"])
        assert encrypted["hosts"] == [rule["host"]]
        (path,) = rule["http"]["paths"]
        backend = path["backend"]["service"]
        service = manifests.one("Service", backend["name"])
        assert backend["port"]["name"] in [port["name"] for port in service["spec"]["ports"]]
        found[path["path"]] = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"]
    assert found == {"/": "GRPC", "/v2": "HTTP"}


def test_the_job_publishes_where_frontends_write_and_has_no_right_beyond_that() -> None:
    job = render(JOB)
    (spec,) = [each["spec"]["template"]["spec"] for each in job.of_kind("Job")]
    (container,) = spec["containers"]
    assert container["command"] == ["python", "-m", "intentctl"]
    assert container["args"][0] == "publish"
    mounted = {each["name"]: each for each in container["volumeMounts"]}
    assert mounted["models"]["mountPath"] == container["args"][container["args"].index("--model-dir") + 1]
    assert mounted["candidates"]["readOnly"] is True
    claims = {
        each["name"]: each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "emptyDir" not in each
    }
    writable = render_with("components/writable-models")
    assert claims["models"] in {each["metadata"]["name"] for each in writable.of_kind("PersistentVolumeClaim")}
    own = render("base").pod("predictor")
    assert container["securityContext"] == own.container["securityContext"]
    assert spec["securityContext"] == own.spec["securityContext"]
    assert spec["automountServiceAccountToken"] is False
    (policy,) = job.of_kind("NetworkPolicy")
    assert (policy["spec"].get("ingress", []), policy["spec"].get("egress", [])) == ([], [])
