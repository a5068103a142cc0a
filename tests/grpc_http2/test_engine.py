"""The engine is known to only one module, and the library does not depend on the services that use it."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from typing import Any

from tests.conftest import ROOT


def test_the_contracts_say_so_and_the_gate_holds_them() -> None:
    settings: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    forbidden = [
        (set(contract.get("source_modules", ())), contract.get("forbidden_modules", ())) for contract in contracts
    ]
    (knowing_no_engine,) = [sources for sources, modules in forbidden if "ngh2" in modules]
    assert {"grpc_http2.client", "grpc_http2.server", "serving", "frontend", "predictor"} <= knowing_no_engine
    assert any(sources == {"grpc_http2"} and {"serving", "frontend"} <= set(modules) for sources, modules in forbidden)


def test_the_engine_is_pinned_exactly() -> None:
    pins = (ROOT / "requirements" / "frontend.txt").read_text()
    assert re.search(rf"^ngh2=={re.escape(version('ngh2'))}$", pins, re.MULTILINE)
