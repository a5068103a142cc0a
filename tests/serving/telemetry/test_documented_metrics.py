"""docs/metrics.md has every metric that a service exports, with its type and labels, and no other metric."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from grpc import StatusCode

from frontend.settings import FrontendSettings
from model_service.settings import ModelServiceSettings
from predictor.settings import PredictorSettings
from serving.files.certificates import Certificates
from serving.runtime.assembly.assembly import built
from serving.runtime.program import Program
from serving.runtime.settings import ServerSettings
from tests.conftest import ROOT
from tests.end_to_end.transports.certificates import Authority
from tests.exposition import Exposition, faults_found

DOCUMENT = ROOT / "docs" / "metrics.md"
ROW = re.compile(r"\| `([a-z_]+)` \| (\w+) \|([^|]*)\| ([^|]+) \| ([^|]+) \|")
SERVICES: Mapping[str, tuple[type[ServerSettings], frozenset[str]]] = {
    "frontend": (FrontendSettings, frozenset({"every", "frontend"})),
    "predictor": (PredictorSettings, frozenset({"every", "predictor"})),
    "model_service": (ModelServiceSettings, frozenset({"every", "frontend", "predictor"})),
}


class Documented(NamedTuple):
    """The document's description of a metric."""

    kind: str
    labels: frozenset[str]
    service: str


def documented() -> dict[str, Documented]:
    rows = ROW.findall(DOCUMENT.read_text())
    found = {
        name: Documented(kind, frozenset(filter(None, labels.replace(" ", "").split(","))), service.split(",")[0])
        for name, kind, labels, service, _ in rows
    }
    assert len(found) == len(rows), "a metric has two rows"
    return found


async def exposition_of(service: str, tmp_path: Path, **values: Any) -> Exposition:
    """Return the exposition of a service that has not started, with a call of each kind."""
    kind, _ = SERVICES[service]
    settings = kind(model_dir=tmp_path, metrics_port=1, **values)
    workload = built(Program(service, f"{service}.service:build"), settings, Certificates.of(settings.tls()))
    try:
        assert workload.guards.observer is not None
        for method in ("prediction.PredictionService/Predict", "prediction.Predictor/PredictorPredict"):
            if service == "model_service" or ("Predictor/" in method) == (service == "predictor"):
                workload.guards.observer.ended(method, StatusCode.OK, 0.1)
        return Exposition.of(*workload.collectors)
    finally:
        await workload.close()


async def everything_of(service: str, tmp_path: Path) -> Exposition:
    """Return the exposition of a service whose settings enable all metrics."""
    access = tmp_path / "access.json"
    access.write_text(json.dumps({"identities": {}}))
    certificate, key = Authority(tmp_path, "authority").signed("server")
    return await exposition_of(
        service,
        tmp_path,
        metrics_names="triton,modelmesh",
        access_file=access,
        tls_certificate=certificate,
        tls_key=key,
        trace_endpoint="127.0.0.1:1",
    )


@pytest.mark.parametrize("service", SERVICES)
async def test_every_metric_is_documented_with_its_type_and_labels_and_none_that_is_not_there(
    service: str, tmp_path: Path
) -> None:
    told = await everything_of(service, tmp_path)
    rooms = SERVICES[service][1]
    expected = {name: row for name, row in documented().items() if row.service in rooms}
    assert sorted(told.names) == sorted(expected)
    kinds = {"unknown": "untyped", "info": "gauge"}
    for family in told.families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert kinds.get(family.type, family.type) == expected[name].kind, name
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == expected[name].labels, name


@pytest.mark.parametrize("service", SERVICES)
async def test_what_is_documented_as_told_under_conditions_is_told_under_them_alone(
    service: str, tmp_path: Path
) -> None:
    plain = await exposition_of(service, tmp_path)
    rows = re.findall(r"\| `([a-z_]+)` \| \w+ \|[^|]*\| every, with [^|]+ \|", DOCUMENT.read_text())
    assert rows
    assert plain.names.isdisjoint(rows)
    assert not [name for name in plain.names if name.startswith(("nv_", "modelmesh_"))]


@pytest.mark.parametrize("service", SERVICES)
async def test_the_tool_of_prometheus_finds_no_fault_with_our_names(service: str, tmp_path: Path) -> None:
    # Third-party names are left out: they are not ours to change, and some of them break the tool's rules.
    told = await exposition_of(service, tmp_path)
    assert faults_found([told.text]) == ""


def test_metrics_that_alerts_and_dashboards_ask_for_are_documented() -> None:
    folder = ROOT / "deploy" / "observability"
    names = documented()
    asked = {
        name
        for path in [*folder.glob("*.yml"), *folder.rglob("*.json")]
        if not path.name.endswith("_test.yml")
        for name in re.findall(r"\bintent_[a-z_]+", path.read_text())
    }
    assert asked
    assert not {name for name in asked if not {name, re.sub(r"_(bucket|sum|count)\Z", "", name)} & names.keys()}
