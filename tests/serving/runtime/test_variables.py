from __future__ import annotations

import re
from pathlib import Path

import pytest

from model_service.settings import ModelServiceSettings
from serving.runtime.settings import load_settings
from serving.runtime.variables import SERVICES, UnknownVariable, is_injected_port, unknown_variables
from tests.conftest import ROOT

KNOWN = ("INTENT_PREDICTOR_PORT", "INTENT_PREDICTOR_MAX_MODELS", "MODEL_DIR")


def found(name: str, value: str = "1") -> list[UnknownVariable]:
    return list(unknown_variables({name: value}, KNOWN, ("INTENT_FRONTEND_",)))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("INTENT_PREDICTOR_MAX_MODLES", "INTENT_PREDICTOR_MAX_MODELS"),
        ("INTENT_PREDICTR_PORT", "INTENT_PREDICTOR_PORT"),
        ("INTENT_MODEL_DIR", "MODEL_DIR"),
        ("intent_predictor_prt", "INTENT_PREDICTOR_PORT"),
        ("\ufeffINTENT_PREDICTOR_PORT", "INTENT_PREDICTOR_PORT"),
        ("INTENT_XYZZY", ""),
        ("INTENT_TLS_AUTHORTY", "INTENT_TLS_AUTHORITY"),
        ("INTENT_CREDENTIALS", "INTENT_CREDENTIAL"),
        ("INTENT_CREDENTIAL_FLIE", "INTENT_CREDENTIAL_FILE"),
        ("INTENT_PROMETHEUS_ADRESS", "INTENT_PROMETHEUS_ADDRESS"),
    ],
)
def test_a_misspelt_variable_is_found_with_what_was_meant(name: str, meant: str) -> None:
    assert found(name) == [UnknownVariable(name, meant)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INTENT_PREDICTOR_PORT", "1"),
        ("intent_predictor_port", "1"),
        ("INTENT_FRONTEND_WHATEVER", "1"),
        ("INTENT_CREDENTIAL_FILE", "key"),
        ("INTENT_SHARED", "/x"),
        ("PATH", "/bin"),
        ("INTENT_PREDICTOR_SERVICE_HOST", "10.0.0.1"),
        ("INTENT_PREDICTOR_SERVICE_PORT", "51002"),
        ("INTENT_PREDICTOR_SERVICE_PORT_GRPC", "51002"),
        ("INTENT_PREDICTOR_PORT", "tcp://10.0.0.1:51002"),
        ("INTENT_PREDICTOR_PORT_51002_TCP", "tcp://10.0.0.1:51002"),
        ("INTENT_PREDICTOR_PORT_51002_TCP_ADDR", "10.0.0.1"),
        ("INTENT_SOMETHING_ELSE_PORT", "tcp://10.0.0.1:51002"),
    ],
)
def test_settings_and_names_of_others_are_not(name: str, value: str) -> None:
    assert found(name, value) == []


def test_every_variable_of_scripts_and_compose_files_is_known() -> None:
    sources = [*ROOT.glob("docker-compose*.yml"), *(ROOT / "deploy").rglob("*.yml"), *(ROOT / "scripts").iterdir()]
    texts = [path.read_text(errors="replace") for path in sources if path.is_file()]
    names = {name for text in texts for name in re.findall(r"INTENT_[A-Z_]*[A-Z](?!\w)", text)}
    assert "INTENT_CERTIFICATES" in names
    assert [name for name in sorted(names) if [*unknown_variables({name: "1"}, (), SERVICES)]] == []


def test_a_port_that_an_operator_sets_is_not_taken_for_an_orchestrators() -> None:
    assert not is_injected_port("INTENT_PREDICTOR_PORT", "51002")
    assert not is_injected_port("INTENT_PREDICTOR_HEALTH_PORT", "51091")


def test_a_setting_whose_name_an_orchestrator_could_give_stays_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTENT_MODEL_SERVICE_HOST", "127.0.0.2")
    monkeypatch.setenv("INTENT_MODEL_SERVICE_PORT", "51234")
    settings = load_settings(ModelServiceSettings, ["--model-dir", str(tmp_path)])
    assert (settings.host, settings.port) == ("127.0.0.2", 51234)
