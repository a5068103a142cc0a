"""Faults of all kinds at once. ``python -m tests.chaos --minutes 10`` is the soak run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.end_to_end.processes import transports

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("transport", transports())
def test_no_answer_is_wrong_and_every_model_recovers(
    tmp_path: Path, figure: Callable[[str], None], transport: str
) -> None:
    report = run(tmp_path, 20.0, 1, transport)
    calls = f"{report.statuses.total()} calls: {dict(report.statuses)}"
    figure(f"chaos ({transport}): {report.faults_made.total()} faults, {calls}")
    assert report.failures == []
    assert report.statuses["OK"] > 0
