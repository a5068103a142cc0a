"""Health checks of containers: what they cost, and a machine that is too busy for costly ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving.client import IntentClient
from tests.builders import free_port
from tests.conftest import ROOT
from tests.end_to_end.containers.compose import START_SECONDS, ComposeStack, compose_stack, inspected
from tests.end_to_end.containers.engine import docker
from tests.end_to_end.transports.certificates import Authority

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

BUSY = 20
"""Number of processes that compete with the stack for the processor."""
BUSY_SECONDS = 600
CHECK = ("health-check", "/tmp/health")  # noqa: S108 - the container's
CHECKS = 20
LEAST_GAIN = 20
"""Number of health checks by the file that cost less than one start of Python."""
CPU_TIME = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime)
"""
"""A program that runs a command and prints the processor time of the command and its processes, in seconds."""
SERVICES = ("frontend", "predictor")


@contextmanager
def busy_machine() -> Iterator[None]:
    """Keep the processors busy within the block, with processes that end by themselves in any case."""
    code = f"import time; end = time.monotonic() + {BUSY_SECONDS}\nwhile time.monotonic() < end: pass"
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(BUSY)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def statuses(stack: ComposeStack) -> Sequence[str]:
    """Return the health of each container of the stack."""
    return [
        inspected(container)["State"]["Health"]["Status"]
        for service in SERVICES
        for container in stack.containers(service)
    ]


def test_three_predictors_come_up_on_a_busy_machine(images: None, tmp_path: Path) -> None:
    with busy_machine(), compose_stack(ROOT / "models", tmp_path, "--scale", "predictor=3") as stack:
        with IntentClient(stack.address, timeout=START_SECONDS) as client:
            assert client.predict("clinc150", "make a 10 minute timer").label == "timer"
        assert len(stack.containers("predictor")) == 3
        assert "unhealthy" not in statuses(stack)
        assert not any(inspected(container)["RestartCount"] for container in stack.containers("predictor"))


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
def test_behind_mutual_tls_the_same_check_is_used(images: None, tmp_path: Path, transport: str) -> None:
    authority = Authority(tmp_path, "authority")
    for service in SERVICES:
        for file, kind in zip(authority.signed(service, f"DNS:{service}"), ("crt", "key"), strict=True):
            shutil.copy(file, tmp_path / f"{service}.{kind}")
    shutil.copy(authority.certificate, tmp_path / "authority.crt")
    for file in [tmp_path, *tmp_path.iterdir()]:
        file.chmod(0o755)
    services = {name: {"environment": {f"INTENT_{name.upper()}_TRANSPORT": transport}} for name in SERVICES}
    stack = ComposeStack(
        ROOT / "models",
        tmp_path,
        [f"127.0.0.1:{free_port()}"],
        {"INTENT_CERTIFICATES": str(tmp_path)},
        {"services": services},
        ["tls.yml"],
    )
    try:
        # Compose starts the frontend once the predictor is healthy.
        stack.compose("up", "--detach")
        for service in SERVICES:
            (container,) = stack.containers(service)
            docker("exec", container, "sh", "-c", f"until {' '.join(CHECK)}; do sleep 0.2; done")
    finally:
        stack.down()


def test_what_a_check_costs(images: None, tmp_path: Path, figure: Callable[[str], None]) -> None:
    with compose_stack(ROOT / "models", tmp_path) as stack:
        (frontend,) = stack.containers("frontend")
        seconds: dict[str, float] = {}
        loop = f"for each in $(seq {CHECKS}); do {{}} || exit 1; done"
        for name, command in (("file", " ".join(CHECK)), ("Python", "python -m serving.health_check")):
            shell = ("sh", "-c", loop.format(command))
            seconds[name] = float(docker("exec", frontend, "python", "-c", CPU_TIME, *shell))
            figure(f"a health check by {name}: {1000 * seconds[name] / CHECKS:.1f} ms of processor time")
    assert seconds["file"] * LEAST_GAIN < seconds["Python"]
