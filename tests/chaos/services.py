"""The services of the chaos run, which are killed, stopped for a while, restarted, and run on wrong clocks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.builders import free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import TRANSPORT, Service

_CLOCK: Final = ROOT / "tests" / "fakes" / "wrong_clock"
_BEHIND: Final = ("0", "-300", "-100000000")
_OFFSETS: Final = {
    "http2": (*_BEHIND, "300"),
    # grpcio's core reads deadlines on a clock that the fake does not change; ahead of it, every call would be too late.
    "grpcio": _BEHIND,
}
_HANGS: Final = (0.1, 0.5, 2.0)


class Services:
    """A frontend and a predictor at fixed addresses. One thread changes them.

    Args:
        root: folder of the models.
        logs: folder of the logs.
        chance: source of what is chosen by chance.
        transport: transport of both services.
    """

    def __init__(self, root: Path, logs: Path, chance: random.Random, transport: str = TRANSPORT) -> None:
        self._chance = chance
        predictor, frontend = free_port(), free_port()
        self._root, self._logs, self._transport = root, logs, transport
        self._flags = {
            # The memory holds a part of the models, so that models are evicted and loaded all the time.
            "predictor": ("--port", str(predictor), "--max-models", "5"),
            "frontend": (
                "--port", str(frontend), "--routes", f"intent-classification=predictor://127.0.0.1:{predictor}",
            ),
        }  # fmt: skip
        self._running = {name: self._start(name) for name in self._flags}

    @property
    def frontend(self) -> Service:
        """The frontend that runs now."""
        return self._running["frontend"]

    def wait_until_serving(self) -> None:
        """Return once both services report SERVING."""
        for service in self._running.values():
            service.wait_until_serving()

    def kill(self) -> None:
        """Kill a service, and start another at its address, on another clock."""
        name = self._chance.choice(list(self._running))
        self._running[name].kill()
        self._running[name] = self._start(name)
        self._running[name].wait_until_serving()

    def restart(self) -> None:
        """Ask a service to end, and start another at its address, on another clock."""
        name = self._chance.choice(list(self._running))
        self._running[name].stop()
        self._running[name] = self._start(name)
        self._running[name].wait_until_serving()

    def hang(self) -> None:
        """Stop a service for a while."""
        service = self._chance.choice(list(self._running.values()))
        service.signal_all(signal.SIGSTOP)
        try:
            time.sleep(self._chance.choice(_HANGS))
        finally:
            service.signal_all(signal.SIGCONT)

    def end(self) -> None:
        """End both services."""
        for service in self._running.values():
            service.kill()

    def _start(self, name: str) -> Service:
        log = self._logs / f"{name}.log"
        flags = self._flags[name]
        command = [sys.executable, "-m", name, "--model-dir", str(self._root), "--log-format", "json"]
        command += ["--transport", self._transport, *flags]
        variables = {key: value for key, value in os.environ.items() if not key.startswith("INTENT_")}
        variables |= {
            "PYTHONPATH": str(_CLOCK),
            "FAKE_CLOCK_AHEAD_SECONDS": self._chance.choice(_OFFSETS[self._transport]),
        }
        with log.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=variables, cwd=ROOT)
        return Service(name, f"127.0.0.1:{flags[1]}", process, log)
