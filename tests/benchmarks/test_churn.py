"""Thousands of tenants, far more than the memory holds: nobody gets an error, or the answer of somebody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.churn import Load, measure
from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.end_to_end
def test_two_thousand_tenants_are_served_from_memory_for_two_hundred(tmp_path: Path) -> None:
    # A tenth of what `python -m benchmarks.churn` asks for.
    figures = measure(ROOT / "models" / "clinc150", Load(requests=10_000), tmp_path)

    print(figures)  # noqa: T201 - a figure to reach
    assert figures.errors == 0
    assert figures.wrong_labels == 0
    assert figures.evictions > 1000
    assert figures.loads - figures.evictions <= 200
