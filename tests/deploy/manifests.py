"""Objects that `kubectl kustomize` renders from deploy/kubernetes, and their parts that tests need."""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ByteSize, TypeAdapter

from frontend.settings import FrontendSettings
from model_service.settings import ModelServiceSettings
from predictor.settings import PredictorSettings
from serving.runtime.settings import ServerSettings
from tests.conftest import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
KUSTOMIZATIONS = ("base", "overlays/example", "overlays/example-writable")
"""The shape with two services, bare and in overlays."""
SINGLE_PROCESS = "single-process"
"""The shape with both services in one process."""
JOB = "jobs/publish"
SHARED_OBJECTS = "shared"
COMPONENTS = (
    "components/access",
    "components/image-pull-secret",
    "components/ingress",
    "components/pod-monitor",
    "components/tls",
    "components/traces",
    "components/writable-models",
)
"""Components that an overlay of either shape may add."""
COMPONENTS_OF_FRONTENDS = ("components/engines",)
"""Components for the shape with two services only."""
SERVICES: dict[str, type[ServerSettings]] = {"frontend": FrontendSettings, "predictor": PredictorSettings}
MODEL_SERVICE = "model-service"
SETTINGS: dict[str, type[ServerSettings]] = {**SERVICES, MODEL_SERVICE: ModelServiceSettings}

PODS = [*itertools.product(KUSTOMIZATIONS, SERVICES), (SINGLE_PROCESS, MODEL_SERVICE)]
SHAPES = [
    *itertools.product(("base",), (*COMPONENTS, *COMPONENTS_OF_FRONTENDS)),
    *itertools.product((SINGLE_PROCESS,), COMPONENTS),
]
EACH_POD = pytest.mark.parametrize(("manifests", "service"), PODS, indirect=["manifests"])
"""Runs a test for the pods of each service, in each kustomization that has them."""
EACH_SHAPE = pytest.mark.parametrize(("shape", "component"), SHAPES)
"""Runs a test for each shape with each component that it may have."""
DEFAULT_NAMESPACE = "default"

_SIZE: TypeAdapter[ByteSize] = TypeAdapter(ByteSize)


def kubectl() -> str:
    """Return kubectl, or skip the test."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("no kubectl on the PATH; scripts/test installs one into .venv")
    return found


@functools.cache
def render(kustomization: str) -> Manifests:
    """Return the objects that a kustomization renders; `kubectl` must print no warning."""
    return _rendered(KUBERNETES / kustomization)


@functools.cache
def render_with(component: str, shape: str = "base") -> Manifests:
    """Return the objects of a shape with a component."""
    with tempfile.TemporaryDirectory() as overlay:
        used = {"resources": [_from(overlay, shape)], "components": [_from(overlay, component)]}
        (Path(overlay) / "kustomization.yaml").write_text(yaml.safe_dump(used))
        return _rendered(Path(overlay))


def _rendered(folder: Path) -> Manifests:
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return Manifests(tuple(yaml.safe_load_all(done.stdout)))


def _from(folder: str, kustomization: str) -> str:
    return os.path.relpath(KUBERNETES / kustomization, Path(folder).resolve())


@dataclass(frozen=True)
class Manifests:
    """The objects of one kustomization, as Kubernetes receives them."""

    objects: Sequence[dict[str, Any]]

    def of_kind(self, kind: str) -> Sequence[dict[str, Any]]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = [each for each in self.of_kind(kind) if each["metadata"]["name"] == name]
        return found

    def pod(self, name: str) -> Pod:
        """Return the pods of a Deployment."""
        return Pod(self.one("Deployment", name))

    def pods(self) -> Sequence[Pod]:
        return [Pod(each) for each in self.of_kind("Deployment")]

    def service_of(self, name: str) -> dict[str, Any]:
        """Return the Service that selects the pods of a Deployment."""
        (found,) = [
            each
            for each in self.of_kind("Service")
            if self.selected_by({"matchLabels": each["spec"]["selector"]}) == [name]
        ]
        return found

    def selected_by(self, selector: Mapping[str, Any]) -> Sequence[str]:
        """Return the Deployments whose pods a label selector selects."""
        return [pod.name for pod in self.pods() if selects(selector, pod.labels)]


@dataclass(frozen=True)
class Pod:
    """Template that all pods of a Deployment share."""

    deployment: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.deployment["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.deployment["metadata"].get("namespace", DEFAULT_NAMESPACE))

    @property
    def labels(self) -> Mapping[str, str]:
        labels: Mapping[str, str] = self.deployment["spec"]["template"]["metadata"]["labels"]
        return labels

    @property
    def spec(self) -> Mapping[str, Any]:
        spec: Mapping[str, Any] = self.deployment["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> Mapping[str, Any]:
        """The only container; the pod has no init containers either."""
        assert "initContainers" not in self.spec
        (container,) = self.spec["containers"]
        assert isinstance(container, Mapping)
        return container

    @property
    def variables(self) -> Mapping[str, str]:
        """The environment variables, all given as literal values."""
        assert not {"args", "command", "envFrom"} & set(self.container)
        return {each["name"]: each["value"] for each in self.container["env"]}

    def settings(self, models: Path, monkeypatch: pytest.MonkeyPatch) -> ServerSettings:
        """Return the service's settings in the container, with ``models`` in place of the mounted volume."""
        kind = SETTINGS[self.name]
        with monkeypatch.context() as environment:
            for name, value in {**image_variables(self.name), **self.variables, "MODEL_DIR": str(models)}.items():
                environment.setenv(name, value)
            return kind()

    def volume_at(self, path: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Return the container's mount at ``path``, and its volume."""
        (mount,) = [each for each in self.container["volumeMounts"] if each["mountPath"] == path]
        (volume,) = [each for each in self.spec["volumes"] if each["name"] == mount["name"]]
        return mount, volume


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a label selector, which may only have ``matchLabels``, selects an object with these labels."""
    assert set(selector) <= {"matchLabels"}, "matchExpressions are not read here"
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def bytes_of(quantity: str) -> int:
    """Return the bytes of a Kubernetes quantity such as 512Mi."""
    return _SIZE.validate_python(f"{quantity}B")


def dockerfile(service: str) -> str:
    return (ROOT / f"Dockerfile.{service.replace('-', '_')}").read_text()


def image_variables(service: str) -> Mapping[str, str]:
    """Return the settings that the image of a service sets."""
    found = re.findall(r"\b(INTENT_[A-Z_]+|MODEL_DIR)=(\S+)", dockerfile(service))
    defaults = dict(re.findall(r"^ARG ([A-Z_]+)=(\S+)", dockerfile(service), re.MULTILINE))
    return {name: re.sub(r"\$\{(\w+)\}", lambda use: defaults[use[1]], value) for name, value in found}
