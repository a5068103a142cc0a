"""The Docker engine that tests use: a running one, or one that the shared tools start."""

from __future__ import annotations

import functools
import subprocess
from typing import Final

from tests.conftest import ROOT, SHARED

BASE: Final = "python:3.11-slim-bookworm"

_START: Final = SHARED / "docker" / "engine-up"
_START_SECONDS: Final = 600
_COMMAND_SECONDS: Final = 120


def docker(
    *arguments: str,
    check: bool = True,
    timeout: float = _COMMAND_SECONDS,
    text: str | None = None,
    both: bool = False,
) -> str:
    """Run a Docker command with ``text`` as its input, and return its output, including errors if ``both``."""
    run = subprocess.run(
        ["docker", *arguments],
        capture_output=True, text=True, timeout=timeout, check=False, input=text, cwd=ROOT,
    )  # fmt: skip
    assert not check or run.returncode == 0, f"docker {' '.join(arguments)}:\n{run.stdout}\n{run.stderr}"
    return (run.stdout + run.stderr if both else run.stdout).strip()


@functools.cache
def what_is_missing() -> str | None:
    """Return why no engine is available, in plain words; ``None`` if one runs or could be started."""
    if _succeeds("docker", "image", "inspect", BASE):
        return None
    reason = "INTENT_SHARED has no docker/engine-up to start one"
    if _START.exists():
        run = subprocess.run([_START], capture_output=True, text=True, timeout=_START_SECONDS, check=False)
        reason = f"docker/engine-up could not start one: {run.stderr.strip()[-300:]}"
    # If only the base image is missing, a build fetches it.
    return None if _succeeds("docker", "info") else f"no Docker engine runs here, and {reason}"


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
