from __future__ import annotations

import subprocess
import sys

import pytest

import serving.client
from intent_serving_client.management_client import ManagementClient


def test_every_public_name_can_be_imported() -> None:
    assert all(hasattr(serving.client, name) for name in serving.client.__all__)
    assert serving.client.ManagementClient is ManagementClient


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = serving.client.absent  # type: ignore[attr-defined]


def test_callers_who_only_predict_load_no_pydantic() -> None:
    script = "import sys; from serving.client import IntentClient; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert "intent_serving_client.client" in loaded.stdout.split()
    assert "pydantic" not in loaded.stdout.split()
