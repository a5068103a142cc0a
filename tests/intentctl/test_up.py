"""``intentctl up`` as a user runs it: real processes, real sockets."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from intent_serving_client.client import IntentClient
from intentctl.stack import StackOptions
from predictor.model.network import IntentNetwork
from serving.domain.errors import Unavailable
from tests.builders import a_prediction, free_port, hosted_frontend, publish
from tests.fakes.backend import FakeBackend

pytestmark = pytest.mark.end_to_end

TIMEOUT = 90.0


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder with one tiny model."""
    root = tmp_path_factory.mktemp("models")
    folder = publish(root, "tiny", files={"vocab.pth": pickle.dumps(["<unk>", "make", "timer", "minute"])})
    network = IntentNetwork.of_sizes(4, (3, 2))
    torch.nn.init.zeros_(network.embedding.weight)
    torch.save(network.state_dict(), folder / "model.pth")
    return root


class Up:
    """A running ``intentctl up`` with all processes that it starts."""

    def __init__(self, model_dir: Path, *flags: str, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.predictor_port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "intentctl", "up", "--model-dir", str(model_dir), "--port", str(self.port),
                "--predictor-port", str(self.predictor_port), *flags,
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"COLUMNS": "500", "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def line(self, wanted: str) -> str:
        """Return the next line of the output that contains ``wanted``."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if wanted in line:
                return line
        raise AssertionError(f"it ended without saying {wanted!r}: {self._process.communicate()[1]}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Wait for the command to end; return its exit code, output and errors. Assert that no service is left."""
        output, errors = self._process.communicate(timeout=TIMEOUT)
        for port in (self.port, self.predictor_port):
            assert not self.processes_of(port), "a service was left behind"
        return self._process.returncode, output, errors

    def processes_of(self, port: int) -> list[int]:
        """Return the processes that were started to listen on ``port``."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if b"--port" in arguments and str(port).encode() in arguments and int(entry.name) != self._process.pid:
                found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """Kill the remaining processes, if any."""
        for port in (self.port, self.predictor_port):
            for process in self.processes_of(port):
                os.kill(process, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def started() -> Iterator[list[Up]]:
    """Yield a list for the commands that a test starts; they are killed after the test."""
    every: list[Up] = []
    yield every
    for one in every:
        one.kill()


def test_a_check_starts_both_asks_once_says_what_to_try_next_and_stops(volume: Path, started: list[Up]) -> None:
    up = Up(volume, "--check")
    started.append(up)
    code, output, errors = up.end()
    assert (code, "Traceback" in errors) == (0, False), errors
    assert f"ready: frontend {up.address}, predictor 127.0.0.1:{up.predictor_port}" in output
    assert re.search(r'^tiny: "make a 10 minute timer" -> (yes|no) \(score 0\.\d{3}\)$', output, re.MULTILINE)
    question = '{"runId": "tiny", "document": "make a 10 minute timer"}'
    assert f"grpcurl -plaintext -d '{question}' {up.address} prediction.PredictionService/Predict" in output


def test_both_in_one_process_are_started_asked_and_stopped(volume: Path, started: list[Up]) -> None:
    up = Up(volume, "--single-process", "--check")
    started.append(up)
    code, output, errors = up.end()
    assert (code, "Traceback" in errors) == (0, False), errors
    assert f"ready: frontend and predictor {up.address}, in one process" in output
    assert re.search(r'^tiny: "make a 10 minute timer" -> (yes|no)', output, re.MULTILINE)


def test_workers_share_the_port_of_the_service_that_callers_meet_and_end_with_it(
    volume: Path, started: list[Up]
) -> None:
    up = Up(volume, "--workers", "2")
    started.append(up)
    up.line("Ctrl-C stops both.")
    (frontend,) = map(psutil.Process, up.processes_of(up.port))
    workers = frontend.children()
    assert len(workers) == 2
    with IntentClient(up.address, timeout=TIMEOUT) as client:
        assert client.predict("tiny", "make timer").label in ("yes", "no")
    up.signal(signal.SIGINT)
    code, _, errors = up.end()
    assert code == 0, errors
    psutil.wait_procs(workers, TIMEOUT)


def test_workers_may_have_the_predictor_inside(volume: Path, started: list[Up]) -> None:
    up = Up(volume, "--single-process", "--workers", "2", "--check")
    started.append(up)
    code, output, errors = up.end()
    assert (code, "Traceback" in errors) == (0, False), errors
    assert f"ready: frontend and predictor {up.address}, together in each worker" in output


def test_ctrl_c_drains_and_stops_both(volume: Path, started: list[Up]) -> None:
    up = Up(volume)
    started.append(up)
    up.line("Ctrl-C stops both.")
    assert len(up.processes_of(up.port)) == len(up.processes_of(up.predictor_port)) == 1
    with IntentClient(up.address, timeout=TIMEOUT) as client:
        assert client.predict("tiny", "make timer").label in ("yes", "no")
        up.signal(signal.SIGINT)
        code, _, errors = up.end()
        assert code == 0, errors
        assert errors.index('"event": "draining"') < errors.rindex('"event": "stopped"')
        with pytest.raises(Unavailable):
            client.predict("tiny", "make timer")


def test_a_service_that_dies_ends_the_other_and_is_told(volume: Path, started: list[Up]) -> None:
    up = Up(volume)
    started.append(up)
    up.line("Ctrl-C stops both.")
    (predictor,) = up.processes_of(up.predictor_port)
    os.kill(predictor, signal.SIGKILL)
    code, _, errors = up.end()
    assert code == 1
    assert "error: the predictor ended with exit code -9" in errors
    assert "Traceback" not in errors


def test_a_signal_during_the_start_leaves_nothing_behind(volume: Path, started: list[Up]) -> None:
    up = Up(volume)
    started.append(up)
    while not up.processes_of(up.predictor_port):
        assert up._process.poll() is None
    up.signal(signal.SIGINT)
    code, output, errors = up.end()
    assert code == 0, errors
    assert "ready:" not in output


def test_a_port_that_another_program_holds_is_told_with_the_way_out(volume: Path, started: list[Up]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        up = Up(volume, "--check", port=listener.getsockname()[1])
        started.append(up)
        code, output, errors = up.end()
    assert code == 1
    assert f"another process listens on {up.address}; stop it, or choose another port with --port" in errors
    assert "Traceback" not in errors
    assert output == ""


async def test_another_frontend_on_the_port_is_not_taken_for_the_own_one(volume: Path, started: list[Up]) -> None:
    stranger = FakeBackend(lambda query: a_prediction(query, "a stranger's answer"))
    async with hosted_frontend(volume, stranger) as address:
        up = Up(volume, "--check", port=int(address.rpartition(":")[2]))
        started.append(up)
        code, output, errors = await asyncio.to_thread(up.end)
    assert (code, output) == (1, "")
    assert f"another process listens on {address}" in errors


def test_a_model_folder_that_is_none_is_a_wrong_call(tmp_path: Path, started: list[Up]) -> None:
    up = Up(tmp_path / "absent", "--check")
    started.append(up)
    code, output, errors = up.end()
    assert code == 2
    assert "--model-dir" in errors
    assert "Traceback" not in errors
    assert output == ""


@pytest.mark.parametrize(
    ("transport", "told"), [("envoy", "omit the setting, or set it to http2"), ("http3", "http2 or grpcio")]
)
def test_a_transport_that_is_none_is_refused_with_what_to_write(
    transport: str, told: str, volume: Path, started: list[Up]
) -> None:
    up = Up(volume, "--check", "--transport", transport)
    started.append(up)
    code, output, errors = up.end()
    assert (code, output) == (2, "")
    assert "--transport" in errors
    assert told in errors


def test_what_no_flag_says_is_left_to_the_settings_of_the_services() -> None:
    flags = [flag for planned in StackOptions(Path("models"), "127.0.0.1", 1, 2).services() for flag in planned.flags]
    assert not {"--transport", "--workers"}.intersection(flags)
    options = StackOptions(Path("models"), "127.0.0.1", 1, 2, "grpcio", workers=3)
    (_, frontend) = options.services()
    assert frontend.flags[:4] == ("--transport", "grpcio", "--workers", "3")
