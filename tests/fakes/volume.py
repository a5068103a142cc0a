"""A fake volume below the real predictor: it fails when a test says so, and no file system here fails on request.

``python -m tests.fakes.volume`` is ``python -m predictor`` with the calls of ``os`` that reach the files of
models replaced. Each first looks into a folder outside of the volume, where a test has left the faults to come.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from predictor import service
from predictor.settings import PredictorSettings
from serving.runtime.hosting import run
from serving.runtime.program import Program
from serving.runtime.settings import load_settings
from serving.runtime.workload import Workload
from serving.volume.freshness.comparison import ThreadComparison
from serving.volume.model_store import MODEL_FILES
from tests.conftest import ROOT
from tests.end_to_end.processes import START_SECONDS, TRANSPORT, Stack, start

FAULTS_VARIABLE = "FAKE_VOLUME_FAULTS"
HOLD = "HOLD"

STAT, OPEN, READ, FOLDER = "stat", "open", "read", "folder"
"""Operations that can fail: the calls for the files of a model, and the calls that look at its folder."""


@dataclass
class Held:
    """A model whose files do not open before :meth:`release`, while a load waits for them."""

    fifo: Path
    writer: int

    def release(self) -> None:
        """Let the waiting load continue."""
        self.fifo.unlink()
        os.close(self.writer)


@dataclass
class FakeVolume:
    """A test's control of the fake: one file per fault, which the failing call removes."""

    faults: Path

    def fail(self, model_id: str, operation: str, error: str, *, times: int) -> None:
        """Make the next ``times`` calls of one kind fail with ``error``, a name of :mod:`errno`."""
        for number in range(times):
            (self.faults / f"{model_id}@{operation}@{error}@{number}").touch()

    def left(self) -> int:
        """Return the number of faults that have not occurred yet."""
        return len(list(self.faults.iterdir()))

    def recover(self) -> None:
        """Remove all faults that have not occurred yet."""
        for fault in self.faults.iterdir():
            fault.unlink(missing_ok=True)

    def hold(self, model_id: str) -> None:
        """Keep the model's files from opening until the handle that :meth:`wait_until_held` returns is released."""
        os.mkfifo(self.faults / f"{model_id}@{OPEN}@{HOLD}@0")

    def wait_until_held(self, model_id: str) -> Held:
        """Return a handle once a load of the model waits for its files."""
        fifo = self.faults / f"{model_id}@{OPEN}@{HOLD}@0"
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up:
            # The FIFO cannot be opened for writing before the fake has opened it for reading.
            with contextlib.suppress(OSError):
                return Held(fifo, os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
            time.sleep(0.002)
        raise AssertionError("no load of the model has begun")


@contextlib.contextmanager
def stack_over_fake_volume(
    models: Path, logs: Path, *flags: str, transport: str = TRANSPORT
) -> Iterator[tuple[Stack, FakeVolume]]:
    """Run both services, the predictor over a fake volume with ``flags``; yield them ready, end them afterwards."""
    volume = FakeVolume(logs / "faults")
    volume.faults.mkdir()
    with contextlib.ExitStack() as ends:
        with patch.dict(os.environ, {FAULTS_VARIABLE: str(volume.faults), "PYTHONPATH": str(ROOT)}):
            engine = start(__name__, models, logs, *flags, transport=transport)
        ends.callback(engine.kill)
        routes = f"intent-classification=predictor://{engine.address}"
        router = start("frontend", models, logs, "--routes", routes, transport=transport)
        ends.callback(router.kill)
        router.wait_until_serving()
        yield Stack(models, router, engine), volume


def _failing(faults: Path, operation: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a wrapper of ``real`` that fails first if there is a fault for the call."""

    def call(target: Any, *arguments: Any, **options: Any) -> Any:
        path = _path_of(target, options.get("dir_fd"))
        kind = f"{path.parent.name}@{operation}@" if path.name in MODEL_FILES else f"{path.name}@{FOLDER}@"
        for fault in sorted(faults.iterdir()):
            if fault.name.startswith(kind):
                _come_to_pass(fault)
        return real(target, *arguments, **options)

    return call


def _path_of(target: Any, folder: int | None) -> Path:
    """Return the path that a call refers to by a path, a descriptor, or a path relative to an open folder."""
    if isinstance(target, int):
        return Path(f"/proc/self/fd/{target}").readlink()
    path = Path(os.fsdecode(target))
    return path if folder is None else _path_of(folder, None) / path


def _come_to_pass(fault: Path) -> None:
    error = fault.name.split("@")[2]
    if error == HOLD:
        fault.read_bytes()  # ends when the test closes its end
        return
    try:
        fault.unlink()
    except FileNotFoundError:
        return  # another thread has taken the fault
    number = getattr(errno, error)
    raise OSError(number, os.strerror(number))


def build(settings: PredictorSettings) -> Workload:
    """Return the predictor over the fake volume. Transports call this function in the serving process."""
    faults = Path(os.environ[FAULTS_VARIABLE])
    for operation, name in ((STAT, "stat"), (OPEN, "open"), (READ, "read")):
        # The patch lasts as long as the process.
        patch.object(os, name, _failing(faults, operation, getattr(os, name))).start()
    service.tune_process()
    # The comparison runs in this process, because only this process is patched.
    return service.workload(settings, ThreadComparison())


if __name__ == "__main__":
    run(Program("predictor", "tests.fakes.volume:build"), load_settings(PredictorSettings))
