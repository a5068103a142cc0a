"""Faults of all kinds at once. ``python -m tests.chaos --minutes 10`` is the soak run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.run import run

pytestmark = pytest.mark.slow


def test_no_answer_is_wrong_and_every_model_recovers(tmp_path: Path, figure: Callable[[str], None]) -> None:
    report = run(tmp_path, 30.0, seed=1)
    figure(f"chaos: {report.faults_made.total()} faults, {report.statuses.total()} calls: {dict(report.statuses)}")
    assert report.failures == []
    assert report.statuses["OK"] > 0
