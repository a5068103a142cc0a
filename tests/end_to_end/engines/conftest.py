from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.client import IntentClient
from tests.builders import PATIENCE
from tests.end_to_end.engines.engines import Fleet


@pytest.fixture
def client(engines: Fleet) -> Iterator[IntentClient]:
    """Asks the frontend before the engines of the module."""
    with IntentClient(engines.frontend.address, timeout=PATIENCE) as made:
        yield made
