"""Routes of the frontend in Compose: to the engines that the files start, and to no others."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from frontend.routing.routes import parse_routes
from tests.conftest import ROOT

PLAIN = ROOT / "docker-compose.yml"
WITH_TORCHSERVE = ROOT / "deploy" / "compose" / "torchserve.yml"


@pytest.mark.parametrize(
    ("files", "kinds"), [([PLAIN], {"predictor"}), ([PLAIN, WITH_TORCHSERVE], {"predictor", "torchserve"})]
)
def test_the_frontend_looks_for_the_engines_that_compose_starts(files: list[Any], kinds: set[str]) -> None:
    services: dict[str, dict[str, Any]] = {}
    for file in files:
        for name, service in yaml.safe_load(file.read_text())["services"].items():
            known = services.setdefault(name, {"environment": {}})
            environment = known["environment"] | service.get("environment", {})
            services[name] = known | service | {"environment": environment}
    routes = parse_routes(services["frontend"]["environment"]["INTENT_FRONTEND_ROUTES"])
    assert {engine.kind for engine in routes.values()} == kinds
    assert kinds <= {name for name, service in services.items() if "profiles" not in service}
