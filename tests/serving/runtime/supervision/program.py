"""A service whose callers command its workers: the program that the tests of supervision run."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import uvloop
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from pydantic import Field

from serving.domain.prediction import Query
from serving.runtime.settings import ServerSettings, load_settings, service_settings
from serving.runtime.supervision.supervisor import supervise
from serving.runtime.supervision.times import Times
from serving.runtime.workload import Workload
from serving.telemetry.logs import configure_logs
from serving.transport.hosts.listening import CannotListen
from tests.fakes.predictor import fake_predictor

NAME = "workers"
TIMES = Times(stable=60.0, first_pause=0.05, longest_pause=0.2, look=0.2, hang=2.0, close=2.0)
WHO = "who"
"""Document that is answered with the number of the worker and its process id, with a blank between them."""
HANG = "hang"
"""Document that blocks the event loop for longer than any test takes."""


class Settings(ServerSettings):
    """Settings of the program, and the faults of its workers."""

    model_config = service_settings("WORKERS_", NAME)

    workers: int = 2
    fails: str = Field(
        default="", description="folder; the worker whose number a file there has as its name ends at once"
    )
    late: str = Field(default="", description="file without which nobody is ready")
    stays: bool = Field(default=False, description="whether a worker does not end when it is asked to")

    def worker_processes(self) -> int:
        return self.workers


class Calls:
    """A metric of the answered calls."""

    def __init__(self) -> None:
        self.count = 0

    def collect(self) -> list[Metric]:
        return [CounterMetricFamily("calls", "Calls.", value=self.count)]

    def describe(self) -> list[Metric]:
        return []


def build(settings: Settings) -> Workload:
    """Return the service of one worker."""
    membership = settings.membership
    assert membership is not None
    index = membership.index
    if settings.fails and (Path(settings.fails) / str(index)).exists():
        sys.exit(7)
    calls = Calls()

    async def answer(query: Query) -> str:
        command, _, argument = query.document.partition(" ")
        if command == "exit":
            os._exit(int(argument))
        if command == HANG:
            time.sleep(3600)  # noqa: ASYNC251 - a hanging worker blocks its event loop
        while command == "wait" and not Path(argument).exists():  # noqa: ASYNC110 - only files are shared
            await asyncio.sleep(0.01)
        calls.count += 1
        return f"{index} {os.getpid()}"

    async def get_ready() -> None:
        while settings.late and not Path(settings.late).exists():  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.01)

    async def close() -> None:
        if settings.stays:
            await asyncio.sleep(3600)

    return Workload([fake_predictor(answer)], get_ready, close, collectors=[calls])


def main() -> None:
    """Supervise until a signal."""
    settings = load_settings(Settings)
    configure_logs(NAME, settings.log_level, settings.log_format)
    try:
        sys.exit(uvloop.run(supervise(NAME, "tests.serving.runtime.supervision.program:build", settings, TIMES)))
    except CannotListen as error:
        sys.exit(f"{NAME}: {error}")


if __name__ == "__main__":
    # The import is under the module's own name, by which workers import the settings.
    from tests.serving.runtime.supervision.program import main as run

    run()
