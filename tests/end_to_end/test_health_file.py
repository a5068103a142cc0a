"""The health check of containers against real services: one process and several, on both transports."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.builders import PATIENCE
from tests.conftest import ROOT
from tests.end_to_end.processes import start, transports

pytestmark = pytest.mark.end_to_end

CHECK = ROOT / "deploy" / "images" / "health-check"


def check_until(file: Path, code: int, told: str) -> None:
    """Run the check until it ends with ``code`` and prints ``told``."""
    given_up = time.monotonic() + PATIENCE
    while True:
        run = subprocess.run([CHECK, file], capture_output=True, text=True, timeout=PATIENCE, check=False)
        if (run.returncode, run.stdout) == (code, told):
            return
        assert time.monotonic() < given_up, run.stdout
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("transport", transports())
def test_a_service_is_healthy_from_ready_to_drain(tmp_path: Path, transport: str, workers: int) -> None:
    file = tmp_path / "health"
    flags = ("--health-file", str(file), "--drain-delay-seconds", "60", "--workers", str(workers))
    service = start("model_service", ROOT / "models", tmp_path, *flags, transport=transport)
    try:
        service.wait_until_logged("ready")
        check_until(file, 0, "")
        service.process.terminate()
        service.wait_until_logged("draining")
        check_until(file, 1, "NOT_SERVING\n")
        # The second signal ends the wait.
        assert service.stop() == 0
        assert not file.exists()
    finally:
        service.kill()
