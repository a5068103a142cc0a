"""The same tests for a real Triton, whose server is part of the nvidia-pytriton wheel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from peers.environments import is_installed
from peers.triton import ENVIRONMENT
from serving.client import IntentClient
from serving.domain.errors import DeadlineExceeded
from tests.end_to_end.engines.engines import DOCUMENT, LABEL, Engine, Fleet, fleet, predictor_engine, triton_engine
from tests.end_to_end.engines.suite import EngineSuite, models_of_others

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.slow,
    pytest.mark.xdist_group("triton"),  # one worker starts the shared server
    pytest.mark.skipif(not is_installed(ENVIRONMENT), reason="scripts/test --with-triton installs it"),
]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("engines"), {"predictor": predictor_engine, "triton": triton_engine}) as running:
        yield running


@pytest.fixture
def engine(engines: Fleet) -> Engine:
    if "triton" in engines.missing:
        pytest.skip(engines.missing["triton"])
    return engines.engines["triton"]


class TestTriton(EngineSuite):
    """Triton beside our predictor, behind one frontend."""

    def test_an_engine_that_hangs_costs_its_own_callers_their_deadline(
        self, client: IntentClient, engines: Fleet, engine: Engine
    ) -> None:
        # Not a pause: Triton's Python backend aborts, or stops answering, after its processes were stopped for a while.
        with pytest.raises(DeadlineExceeded):
            client.predict(engine.slow, DOCUMENT, timeout=1)
        for model in (*engine.models, *models_of_others(engines, engine)):
            assert client.predict(model, DOCUMENT).label == LABEL
