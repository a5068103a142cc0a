"""Starts that cannot succeed, or only just: one line, no traceback, and an exit code that says which kind it was."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import START_SECONDS, running_service, start, transports

SERVICES = ("frontend", "predictor", "model_service")
MODELS = ROOT / "models"


def failed_start(name: str, *flags: str, before: str = "", **variables: str) -> tuple[int, list[str]]:
    """Return the exit code and the lines of a service that does not start, without its log of earlier steps."""
    command = [sys.executable, "-m", name, "--model-dir", str(MODELS), "--port", str(free_port()), *flags]
    shell = ["bash", "-c", f'{before} exec "$@"', "bash"] if before else []
    ran = subprocess.run(
        [*shell, *command],
        capture_output=True,
        cwd=ROOT,
        timeout=START_SECONDS,
        env=os.environ | variables,
        check=False,
    )
    assert ran.stdout == b""
    lines = ran.stderr.decode().splitlines()
    assert "Traceback" not in ran.stderr.decode()
    return ran.returncode, [line for line in lines if '"event": "listening"' not in line]


@pytest.mark.parametrize("transport", transports())
@pytest.mark.parametrize("flag", ["--port", "--metrics-port", "--health-port"])
def test_a_port_in_use_is_one_line(flag: str, transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        code, lines = failed_start("predictor", "--transport", transport, flag, port)
    purpose = {"--port": "", "--metrics-port": " for metrics", "--health-port": " for health checks"}[flag]
    why = "it is in use; end the process that holds it, or choose another port"
    assert (code, lines) == (1, [f"predictor: cannot listen on 127.0.0.1:{port}{purpose}: {why}"])


@pytest.mark.parametrize("name", SERVICES)
def test_too_few_descriptors_are_one_line(name: str) -> None:
    code, lines = failed_start(name, before="ulimit -n 20;")
    assert (code, len(lines)) == (1, 1), lines
    assert lines[0].startswith(f"{name}: the process may open 20 files")
    assert "ulimit -n" in lines[0]


@pytest.mark.parametrize("name", SERVICES)
def test_a_number_beyond_every_bound_is_one_line_under_the_heading(name: str) -> None:
    code, lines = failed_start(name, "--max-in-flight", "9" * 30)
    assert (code, len(lines)) == (2, 2)
    assert lines[1].strip().startswith("--max-in-flight (or INTENT_")


@pytest.mark.parametrize("name", SERVICES)
def test_a_misspelt_variable_is_logged_and_names_of_an_orchestrator_are_not(name: str) -> None:
    prefix = f"INTENT_{name.upper()}"
    variables = {
        f"{prefix}_MAX_IN_FLIHGT": "1",
        f"{prefix}_SERVICE_HOST": "10.0.0.1",
        f"{prefix}_PORT": "tcp://10.0.0.1:51001",
        f"{prefix}_PORT_51001_TCP_ADDR": "10.0.0.1",
    }
    code, lines = failed_start(name, "--host", "192.0.2.1", "--log-format", "json", **variables)
    assert code == 1
    warning, refusal = lines
    told = json.loads(warning)
    assert (told["event"], told["variable"]) == ("unknown environment variable", f"{prefix}_MAX_IN_FLIHGT")
    assert told["meant"] == f"{prefix}_MAX_IN_FLIGHT"
    assert "not an address of this machine" in refusal


READ_ONLY = """
set -e
mount --make-rprivate /
mount --bind / /mnt
mount -o remount,bind,ro /mnt
mount --rbind /dev /mnt/dev
mount --rbind /proc /mnt/proc
mount --rbind /sys /mnt/sys
mount -t tmpfs -o ro tmpfs /mnt/dev/shm
exec chroot /mnt bash -c 'cd "$0"; if touch /tmp/x /var/tmp/x ./x 2>/dev/null; then exit 99; fi; exec "$@"' "$@"
"""


@pytest.mark.parametrize("transport", transports())
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_starts_where_no_folder_can_be_written_to(transport: str, workers: str) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a file system read-only")
    port, metrics = str(free_port()), str(free_port())
    service = [sys.executable, "-m", "model_service", "--model-dir", str(MODELS), "--port", port]
    service += ["--transport", transport, "--metrics-port", metrics, "--workers", workers, "--log-format", "json"]
    command = [unshare, "-m", "bash", "-c", READ_ONLY, "bash", str(ROOT), *service]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            events = []
            for line in process.stderr:
                assert line.startswith("{"), line
                events.append(json.loads(line)["event"])
                if events[-1] == "ready":
                    break
            assert events[-1:] == ["ready"]
        finally:
            process.terminate()
            process.wait(START_SECONDS)
    assert process.returncode == 0


def test_a_size_is_taken_as_kubernetes_writes_it(tmp_path: Path) -> None:
    with running_service("predictor", MODELS, tmp_path, "--model-memory", "1Gi", "--max-message-bytes", "4Mi"):
        pass


@pytest.mark.parametrize("name", ["predictor", "model_service"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_service_runs_and_ends_although_its_standard_streams_are_closed(
    name: str, closed: str, tmp_path: Path
) -> None:
    service = start(name, MODELS, tmp_path, before=["bash", "-c", f'exec "$@" {closed}', "bash"])
    try:
        service.wait_until_serving()
        assert service.stop() == 0
    finally:
        service.kill()
