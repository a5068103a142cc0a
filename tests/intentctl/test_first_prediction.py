from __future__ import annotations

from pathlib import Path

import pytest

from intentctl.first_prediction import make_first_prediction
from intentctl.stack import StackOptions
from tests.builders import free_port


async def test_without_a_model_it_says_how_to_make_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await make_first_prediction(StackOptions(tmp_path, "127.0.0.1", free_port(), free_port(), "grpcio"))
    assert "`intentctl train --help` shows how to train one" in " ".join(capsys.readouterr().out.split())
