from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.client import IntentClient
from tests.builders import PATIENCE
from tests.end_to_end.engines.engines import Fleet


@pytest.fixture
def client(engines: Fleet) -> Iterator[IntentClient]:
    """A client of the frontend of the module's engines."""
    with IntentClient(engines.frontend.address, timeout=PATIENCE) as made:
        yield made
