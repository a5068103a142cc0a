"""Sessions of the fuzzer: those that once found a fault, and those of one minute."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.grpc_http2.fuzz import Runner, run

FOUND = [
    # Settings arrived in the same read as the frame that ended the connection.
    ("client", 13_033),
    ("client", 21_215),
]
"""Role and seed of each session. A change to the code that writes frames changes what a seed means."""


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(("role", "seed"), FOUND)
async def test_what_the_fuzzer_has_found_stays_found(role: str, seed: int) -> None:
    await Runner().session(role, seed)


async def test_a_few_sessions_of_both_roles_go_well() -> None:
    runner = Runner()
    for seed in range(200):
        for role in ("server", "client"):
            await runner.session(role, seed)


@pytest.mark.slow
async def test_the_sessions_of_a_minute_go_well() -> None:
    assert await run(1.0, 1_000_000) == 0
