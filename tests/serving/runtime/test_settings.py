from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from frontend.settings import FrontendSettings
from model_service.settings import ModelServiceSettings
from predictor.settings import PredictorSettings
from serving.runtime.settings import ServerSettings, load_settings, variable_of

BOTH = pytest.mark.parametrize(
    ("kind", "prefix"),
    [(PredictorSettings, "INTENT_PREDICTOR_"), (FrontendSettings, "INTENT_FRONTEND_")],
    ids=["predictor", "frontend"],
)

KINDS = pytest.mark.parametrize("kind", [PredictorSettings, FrontendSettings], ids=["predictor", "frontend"])


@pytest.fixture(autouse=True)
def _model_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))


def told_by(kind: type[BaseSettings], arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message of a start that the settings prevented."""
    with pytest.raises(SystemExit) as ended:
        load_settings(kind, arguments)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


@BOTH
def test_a_flag_wins_over_its_variable_and_the_variable_over_the_default(
    kind: type[ServerSettings], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings(kind, []).port == 51001
    monkeypatch.setenv(f"{prefix}PORT", "1")
    assert load_settings(kind, []).port == 1
    assert load_settings(kind, ["--port", "2"]).port == 2
    assert load_settings(kind, ["--port=3"]).port == 3


@BOTH
def test_every_setting_can_be_set_by_the_variable_that_help_names(
    kind: type[ServerSettings], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{prefix}FRESHNESS_SECONDS", "7.5")
    monkeypatch.setenv(f"{prefix}LOG_LEVEL", "error")
    monkeypatch.setenv(f"{prefix}MAX_BATCH_SIZE", "9")
    settings = load_settings(kind, [])
    assert (settings.freshness_seconds, settings.log_level, settings.max_batch_size) == (7.5, "error", 9)


@BOTH
def test_the_variables_of_one_service_do_not_touch_the_other(
    kind: type[ServerSettings], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {"INTENT_PREDICTOR_": "INTENT_FRONTEND_", "INTENT_FRONTEND_": "INTENT_PREDICTOR_"}[prefix]
    monkeypatch.setenv(f"{other}PORT", "1")
    monkeypatch.setenv("PORT", "2")
    monkeypatch.setenv("HOST", "example.org")
    settings = load_settings(kind, [])
    assert (settings.port, settings.host) == (51001, "127.0.0.1")


@KINDS
def test_the_model_folder_is_set_as_the_seed_sets_it(
    kind: type[ServerSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings(kind, []).model_dir == tmp_path
    other = tmp_path / "other"
    other.mkdir()
    assert load_settings(kind, ["--model-dir", str(other)]).model_dir == other
    monkeypatch.setenv("MODEL_DIR", str(other))
    assert load_settings(kind, []).model_dir == other


@KINDS
@pytest.mark.parametrize("wrong", ["absent", "file"])
def test_a_model_folder_that_is_none_is_told_with_its_flag_and_its_variable(
    kind: type[ServerSettings],
    wrong: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODEL_DIR", str(tmp_path / wrong))
    message = told_by(kind, [], capsys)
    assert "--model-dir (or MODEL_DIR)" in message
    assert wrong in message


@BOTH
def test_every_wrong_value_is_told_in_one_message(
    kind: type[ServerSettings], prefix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"{prefix}PORT", "70000")
    monkeypatch.setenv(f"{prefix}LOG_LEVEL", "loud")
    monkeypatch.setenv(f"{prefix}FRESHNESS_SECONDS", "-1")
    message = told_by(kind, ["--max-in-flight", "many", "--host", ""], capsys)
    first, *faults = message.splitlines()
    assert first == f"{kind.model_config['cli_prog_name']}: wrong settings, not started:"
    assert len(faults) == 5
    for name, value in (
        ("port", "'70000'"),
        ("log-level", "'loud'"),
        ("freshness-seconds", "'-1'"),
        ("max-in-flight", "'many'"),
        ("host", "''"),
    ):
        variable = prefix + name.replace("-", "_").upper()
        assert any(f"--{name} (or {variable}) is {value}: " in fault for fault in faults), faults


ON_OR_OFF = {
    "--log-documents": True,
    "--no-log-documents": False,
    "--log-documents true": True,
    "--log-documents False": False,
    "--log-documents 0": False,
    "--log-documents=yes": True,
    "--log-documents=false": False,
    "--log-documents --port 2": True,
    "--no-log-documents --log-documents": True,
}


@pytest.mark.parametrize("kind", [FrontendSettings, PredictorSettings, ModelServiceSettings])
@pytest.mark.parametrize(("given", "is_on"), ON_OR_OFF.items())
def test_what_is_on_or_off_is_a_pair_of_flags_and_takes_a_value_as_before(
    kind: type[ServerSettings], given: str, is_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{kind.model_config['env_prefix']}LOG_DOCUMENTS", str(not is_on))
    assert load_settings(kind, given.split()).log_documents is is_on


@pytest.mark.parametrize("kind", [FrontendSettings, PredictorSettings, ModelServiceSettings])
def test_help_shows_no_type_for_flags(kind: type[ServerSettings], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load_settings(kind, ["--help"])
    printed = capsys.readouterr().out
    assert "--log-documents, --no-log-documents" in printed
    assert re.search(r"--\S+ bool\b", printed) is None


@BOTH
def test_help_names_every_setting_with_its_variable(
    kind: type[ServerSettings], prefix: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit) as ended:
        load_settings(kind, ["--help"])
    assert ended.value.code in (0, None)
    captured = capsys.readouterr()
    assert captured.err == ""
    for name in kind.model_fields:
        assert f"--{name.replace('_', '-')}" in captured.out
        variable = "MODEL_DIR" if name == "model_dir" else f"{prefix}{name}".upper()
        assert f"[{variable}]" in captured.out
        assert variable_of(kind, name) == variable
    assert "None [" not in captured.out


@KINDS
@pytest.mark.parametrize("arguments", [["--no-such-flag", "1"], ["stray"], ["--port"]], ids=" ".join)
def test_flags_that_are_not_known_or_not_complete_are_told(
    kind: type[ServerSettings], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert arguments[0] in told_by(kind, arguments, capsys)


@KINDS
@pytest.mark.parametrize(
    "flags",
    [
        ["--port", "-1"],
        ["--port", "65536"],
        ["--port", "1.5"],
        ["--max-message-bytes", "1023"],
        ["--max-document-bytes", "0"],
        ["--max-batch-size", "0"],
        ["--max-in-flight", "0"],
        ["--max-streams-per-connection", "0"],
        ["--default-deadline-seconds", "inf"],
        ["--default-deadline-seconds", "86401"],
        ["--file-threads", "0"],
        ["--file-threads", "257"],
        ["--drain-delay-seconds", "nan"],
        ["--drain-grace-seconds", "-0.1"],
        ["--log-level", "INFO"],
        ["--log-format", "xml"],
    ],
    ids=" ".join,
)
def test_a_value_out_of_range_is_told(
    kind: type[ServerSettings], flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert flags[0] in told_by(kind, flags, capsys)


@KINDS
def test_settings_cannot_be_changed_afterwards(kind: type[ServerSettings]) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings(kind, []).port = 5


ALL = pytest.mark.parametrize("kind", [PredictorSettings, FrontendSettings, ModelServiceSettings])


@ALL
def test_a_number_beyond_every_bound_is_told_in_one_line(
    kind: type[ServerSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = [name for name, field in kind.model_fields.items() if isinstance(field.default, int | float)]
    numbers = [name for name in numbers if not isinstance(kind.model_fields[name].default, bool)]
    assert len(numbers) > 20
    for name in numbers:
        flag = "--" + name.replace("_", "-")
        for value in ("9" * 20, "9" * 400):
            told = told_by(kind, [flag, value], capsys).splitlines()
            assert len(told) == 2, name
            assert told[1].strip().startswith(f"{flag} (or ")


@ALL
def test_bytes_are_taken_as_kubernetes_writes_them(kind: type[ServerSettings]) -> None:
    sizes = [name for name in kind.model_fields if name.endswith(("_bytes", "_memory"))]
    assert {"max_message_bytes", "max_document_bytes"} <= set(sizes)
    for name in sizes:
        settings = load_settings(kind, ["--" + name.replace("_", "-"), "512Mi"])
        assert getattr(settings, name) == 512 << 20


@pytest.mark.parametrize(("host", "kept"), [("::1", "::1"), ("[::1]", "::1"), ("::", "::"), ("localhost", "localhost")])
def test_hosts_are_taken_with_and_without_brackets(host: str, kept: str) -> None:
    assert load_settings(PredictorSettings, ["--host", host]).host == kept


@pytest.mark.parametrize("host", ["http://localhost", "localhost:51001", "unix:/run/a.sock", "[::1", "*"])
def test_what_is_no_host_is_refused(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--host (or INTENT_PREDICTOR_HOST) is {host!r}: " in told_by(PredictorSettings, ["--host", host], capsys)


def test_the_variables_of_an_orchestrator_are_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTENT_FRONTEND_PORT", "tcp://10.0.0.1:51001")
    monkeypatch.setenv("INTENT_FRONTEND_SERVICE_HOST", "10.0.0.1")
    assert load_settings(FrontendSettings, []).port == 51001


def test_a_value_may_begin_with_a_byte_order_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTENT_FRONTEND_ROUTES", "\ufeffintent-classification=predictor://[::1]:51002")
    assert load_settings(FrontendSettings, []).routes == "intent-classification=predictor://[::1]:51002"
