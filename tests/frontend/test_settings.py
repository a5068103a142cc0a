from __future__ import annotations

from pathlib import Path

import pytest

from frontend.assembly.engines import backends_of
from frontend.routing.router import Router
from frontend.routing.routes import parse_routes
from frontend.service import catalog_of
from frontend.settings import FrontendSettings
from serving.domain.manifest import Manifest
from serving.runtime.settings import load_settings
from serving.volume.freshness.comparison import ThreadComparison

ROUTES = "INTENT_FRONTEND_ROUTES"


def test_without_a_word_the_predictor_of_this_machine_serves_intent_classification(tmp_path: Path) -> None:
    settings = load_settings(FrontendSettings, ["--model-dir", str(tmp_path)])
    assert settings.routes == "intent-classification=predictor://127.0.0.1:51002"


def test_routes_come_from_the_variable_and_the_flag_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROUTES, "a=predictor://h:1,b=predictor://h:2")
    model_dir = ["--model-dir", str(tmp_path)]
    assert load_settings(FrontendSettings, model_dir).routes == "a=predictor://h:1,b=predictor://h:2"
    assert load_settings(FrontendSettings, [*model_dir, "--routes", "c=predictor://h:3"]).routes == "c=predictor://h:3"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a", "'a' must be written as algorithm=kind://host:port"),
        ("a=triton://h:1", "the kind of engine must be one of"),
        ("a=predictor://h", "the address must be host:port"),
        ("", "there is no route"),
        ("a=predictor://h:1,a=predictor://h:2", "'a' has two routes; keep one"),
    ],
)
def test_wrong_routes_are_told_with_the_variable_and_the_flag(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ROUTES, text)
    with pytest.raises(SystemExit) as ended:
        load_settings(FrontendSettings, ["--model-dir", str(tmp_path)])
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert "frontend: wrong settings, not started:" in message
    assert f"--routes (or {ROUTES})" in message
    assert told in message
    assert "Traceback" not in message


async def test_algorithms_of_one_engine_share_one_connection(tmp_path: Path) -> None:
    settings = load_settings(FrontendSettings, ["--model-dir", str(tmp_path)])
    engines = parse_routes("a=predictor://h:1,b=predictor://h:2,c=predictor://h:1")
    router = Router(backends_of(engines, settings, catalog_of(settings, ThreadComparison()), partitions=0))
    a, b, c = (router.backend_for(Manifest(Algorithm=name)) for name in "abc")
    assert a is c
    assert a is not b
    for backend in router.backends:
        await backend.close()
