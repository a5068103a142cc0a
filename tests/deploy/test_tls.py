"""TLS in Compose and on Kubernetes: the services accept the settings of their containers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontend.settings import FrontendSettings
from serving.runtime.settings import ServerSettings, variables_of
from tests.conftest import ROOT
from tests.deploy.manifests import SERVICES, Pod, render_with
from tests.end_to_end.transports.certificates import Authority

COMPOSE = ROOT / "deploy" / "compose" / "tls.yml"
FOLDER = "/tls"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
BOTH = pytest.mark.parametrize("service", SERVICES)


def pod_of(service: str) -> Pod:
    return render_with("components/tls").pod(service)


def settings_of(
    service: str, variables: Mapping[str, Any], files: Path, monkeypatch: pytest.MonkeyPatch
) -> ServerSettings:
    """Return the settings that ``variables`` give if ``files`` is the container's folder /tls."""
    assert set(variables) <= variables_of(SERVICES[service])
    with monkeypatch.context() as environment:
        environment.setenv("MODEL_DIR", str(files))
        for name, value in variables.items():
            if name != "MODEL_DIR":
                environment.setenv(name, str(value).replace(FOLDER, str(files), 1))
        return SERVICES[service]()


def check(service: str, settings: ServerSettings) -> None:
    """Check the settings that are required however the files are provided."""
    assert settings.tls() is not None
    if isinstance(settings, FrontendSettings):
        files = settings.predictor_tls()
        assert files is not None
        assert files.certificate is not None
    else:
        assert settings.tls_client_authority is not None


def put(pair: tuple[Path, Path], folder: Path, name: str) -> None:
    for file, kind in zip(pair, ("crt", "key"), strict=True):
        shutil.copy(file, folder / f"{name}.{kind}")


@BOTH
def test_on_kubernetes_the_secret_is_mounted_where_the_settings_look(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path, "authority")
    put(authority.signed(service, f"DNS:{service}"), tmp_path, "tls")
    shutil.copy(authority.certificate, tmp_path / "ca.crt")
    pod = pod_of(service)
    mount, volume = pod.volume_at(FOLDER)

    settings = settings_of(service, pod.variables, tmp_path, monkeypatch)
    check(service, settings)
    assert settings.health_port not in {0, settings.port, settings.metrics_port}
    assert mount["readOnly"] is True
    assert volume["secret"]["secretName"] == f"{service}-tls"
    # A file of a Secret that is mounted by ``subPath`` would never be replaced.
    assert "subPath" not in mount


@BOTH
def test_on_kubernetes_probes_ask_the_port_that_is_not_encrypted(service: str) -> None:
    pod = pod_of(service)
    port = int(pod.variables[f"INTENT_{service.upper()}_HEALTH_PORT"])
    plain = render_with("components/pod-monitor").pod(service).container

    for probe in PROBES:
        assert pod.container[probe] == {**plain[probe], "grpc": {**plain[probe]["grpc"], "port": port}}


@BOTH
def test_in_compose_the_files_are_those_that_the_settings_name(
    service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path, "signer")
    put(authority.signed(service, f"DNS:{service}"), tmp_path, service)
    shutil.copy(authority.certificate, tmp_path / "authority.crt")
    told = yaml.safe_load(COMPOSE.read_text())["services"][service]

    settings = settings_of(service, told["environment"], tmp_path, monkeypatch)
    check(service, settings)
    # The image's own health check reads a file, which TLS does not change.
    assert "healthcheck" not in told


def test_compose_takes_both_files(tmp_path: Path) -> None:
    compose = shutil.which("docker-compose")
    if compose is None:
        pytest.skip("no docker-compose on the PATH")
    command = [compose, "-f", str(ROOT / "docker-compose.yml"), "-f", str(COMPOSE), "config"]
    run = subprocess.run(
        command, env=os.environ | {"INTENT_CERTIFICATES": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    merged = yaml.safe_load(run.stdout)["services"]["frontend"]
    assert "INTENT_FRONTEND_ROUTES" in merged["environment"]
    assert "INTENT_FRONTEND_TLS_KEY" in merged["environment"]
