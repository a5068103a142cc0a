from __future__ import annotations

import pytest

from tests.end_to_end.processes import transports


@pytest.fixture(params=transports())
def each_transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Host the services of a test on each transport, chosen through the environment; return the transport's name."""
    monkeypatch.setenv("INTENT_PREDICTOR_TRANSPORT", request.param)
    return str(request.param)
