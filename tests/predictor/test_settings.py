from __future__ import annotations

from pathlib import Path

import pytest

from predictor.service import build_engine
from predictor.settings import PredictorSettings
from serving.domain.errors import ModelNotFound
from serving.domain.prediction import Query
from serving.runtime.settings import load_settings
from serving.volume.freshness.comparison import ThreadComparison


@pytest.mark.parametrize(
    ("text", "size"), [("1GiB", 1 << 30), ("500MB", 500_000_000), ("2 MiB", 2 << 20), ("1048576", 1 << 20)]
)
def test_memory_is_written_as_people_write_it(text: str, size: int, tmp_path: Path) -> None:
    settings = load_settings(PredictorSettings, ["--model-dir", str(tmp_path), "--model-memory", text])
    assert settings.model_memory == size


@pytest.mark.parametrize(
    "flags",
    [
        ["--model-memory", "-1"],
        ["--model-memory", "much"],
        ["--max-models", "0"],
        ["--max-loads", "0"],
        ["--inference-threads", "0"],
        ["--inference-threads", "257"],
        ["--max-weights-bytes", "0"],
        ["--max-vocabulary-bytes", "x"],
        ["--freshness-seconds", "-1"],
        ["--freshness-seconds", "nan"],
        ["--freshness-seconds", "inf"],
    ],
    ids=" ".join,
)
def test_a_value_out_of_range_is_told_with_its_flag_and_its_variable(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(PredictorSettings, ["--model-dir", str(tmp_path), *flags])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert flags[0] in told
    assert "INTENT_PREDICTOR_" + flags[0].removeprefix("--").replace("-", "_").upper() in told


async def test_an_engine_is_built_from_settings(tmp_path: Path) -> None:
    engine = build_engine(load_settings(PredictorSettings, ["--model-dir", str(tmp_path)]), ThreadComparison())
    try:
        with pytest.raises(ModelNotFound):
            await engine.predict(Query("unknown", "x"))
    finally:
        await engine.close()
