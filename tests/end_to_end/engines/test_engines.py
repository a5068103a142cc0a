"""The same tests through the frontend for models in our predictor, a real TorchServe, and a real MLServer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client import IntentClient
from tests.builders import PATIENCE
from tests.end_to_end.engines.engines import (
    DOCUMENT,
    Engine,
    Fleet,
    fleet,
    mlserver_engine,
    predictor_engine,
    torchserve_engine,
)
from tests.end_to_end.engines.suite import EngineSuite
from tests.end_to_end.processes import running_service

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    pytest.mark.xdist_group("engines"),  # one worker starts the shared engines
    pytest.mark.timeout(1800),  # the first run installs the peers' environments
]

MAKERS = {"predictor": predictor_engine, "torchserve": torchserve_engine, "mlserver": mlserver_engine}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("engines"), MAKERS) as running:
        yield running


@pytest.fixture(params=MAKERS)
def engine(request: pytest.FixtureRequest, engines: Fleet) -> Engine:
    if request.param in engines.missing:
        pytest.skip(engines.missing[request.param])
    return engines.engines[request.param]


class TestEngines(EngineSuite):
    """All engines behind one frontend."""


def test_a_model_that_takes_its_time_is_asked_once(engines: Fleet, tmp_path: Path) -> None:
    if "mlserver" in engines.missing:
        pytest.skip(engines.missing["mlserver"])
    mlserver = engines.engines["mlserver"]
    routes = f"{mlserver.algorithm}={mlserver.address}"
    # A separate frontend: one that a server has rejected before, for too many pings, is more careful with that server.
    with (
        running_service("frontend", engines.models, tmp_path, "--routes", routes) as frontend,
        IntentClient(frontend.address, timeout=PATIENCE) as client,
    ):
        assert client.predict(mlserver.slow, DOCUMENT).label == "1"
