"""Thousands of tenants, far more than fit in memory: no caller gets an error or another tenant's answer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.churn import Load, measure
from tests.conftest import ROOT

REQUESTS = int(os.environ.get("INTENT_TEST_CHURN_REQUESTS", "20000"))


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.timeout(900)
def test_two_thousand_tenants_are_served_from_memory_for_two_hundred(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    figures = measure(ROOT / "models" / "clinc150", Load(requests=REQUESTS), tmp_path)

    figure(", ".join(f"{name} {value:g}" for name, value in dataclasses.asdict(figures).items()))
    assert figures.errors == 0
    assert figures.wrong_labels == 0
    assert figures.evictions > 1000
    assert figures.loads - figures.evictions <= 200
