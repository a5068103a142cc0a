"""A supervisor and its workers as real processes: serving, successors of workers, and processes that remain."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from tests.builders import PATIENCE, free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, wait_until_ended
from tests.exposition import Exposition
from tests.serving.runtime.supervision.program import HANG, NAME, WHO

pytestmark = pytest.mark.end_to_end

LONG_ENOUGH = 4.0
"""Time beyond the bounds of the program, in seconds."""

Run = Callable[..., "Supervised"]


class Supervised(Service):
    """A supervisor with its workers, and calls to them."""

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes of the workers."""
        return self.family()[1:]

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of ``event`` so far."""
        return [line for line in self.events() if line["event"] == event]

    def wait_for_lines(self, event: str, count: int) -> list[dict[str, Any]]:
        """Return the first ``count`` log lines of ``event``, once they exist."""
        eventually(lambda: len(self.lines(event)) >= count)
        return self.lines(event)[:count]

    def ask(self, document: str = WHO, *, worker: int | None = None) -> str:
        """Return the answer of any worker, or of ``worker``, over a new connection."""
        given_up = time.monotonic() + PATIENCE
        while time.monotonic() < given_up:
            with grpc.insecure_channel(self.address, (("grpc.use_local_subchannel_pool", 1),)) as channel:
                stub = pb_grpc.PredictorStub(channel)
                if worker is None or asked(stub, WHO).startswith(f"{worker} "):
                    return asked(stub, document)
        raise AssertionError(f"no connection reaches worker {worker}")

    def pid_of(self, worker: int) -> int:
        return int(self.ask(worker=worker).split()[1])


def asked(stub: Any, document: str) -> str:
    request = pb.PredictorPredictRequest(runId="any", document=document)
    answer = stub.PredictorPredict(request, timeout=PATIENCE, wait_for_ready=True)
    return str(answer.label)


def eventually(holds: Callable[[], bool]) -> None:
    given_up = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < given_up
        time.sleep(0.01)


def started(folder: Path, *flags: str, port: int = 0, group: bool = False) -> Supervised:
    command = [
        sys.executable,
        "-m",
        "tests.serving.runtime.supervision.program",
        "--log-format",
        "json",
        "--port",
        str(port),
    ]
    log = folder / "workers.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--model-dir", str(folder), *flags],
            stdout=output,
            stderr=output,
            cwd=ROOT,
            start_new_session=group,
        )
    return Supervised(NAME, "", process, log)


@contextmanager
def running(folder: Path, *flags: str, **options: Any) -> Iterator[Supervised]:
    it = started(folder, *flags, **options)
    family: Sequence[psutil.Process] = ()
    try:
        it.address = it.wait_until_logged("ready")["address"]
        yield it
    finally:
        family = it.family()
        it.kill()
        wait_until_ended(family)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a function that starts a supervisor, whether or not it serves; kill the supervisors after the test."""
    with pytest.MonkeyPatch.context():
        all_of_them: list[Supervised] = []

        def begin(*flags: str, **options: Any) -> Supervised:
            it = started(tmp_path, *flags, **options)
            all_of_them.append(it)
            return it

        yield begin
        for it in all_of_them:
            it.kill()


# Serving


def test_workers_serve_on_one_port_that_the_supervisor_names_once(tmp_path: Path) -> None:
    with running(tmp_path, "--workers", "3") as it:
        answers = {it.ask(worker=index) for index in range(3)}
        assert sorted(int(answer.split()[1]) for answer in answers) == sorted(each.pid for each in it.workers)
        for event in ("listening", "ready"):
            (line,) = it.lines(event)
            assert line["address"] == it.address
            assert "worker" not in line
        assert sorted(line["worker"] for line in it.lines("worker ready")) == [0, 1, 2]
        assert it.stop() == 0
        assert len(it.lines("draining")) == len(it.lines("stopped")) == 1
        assert not it.address.endswith(":0")


def test_health_says_not_serving_until_workers_are_ready(tmp_path: Path, run: Run) -> None:
    port, late = free_port(), tmp_path / "late"
    it = run("--late", str(late), port=port)
    it.address = f"127.0.0.1:{port}"
    it.wait_until_logged("listening")
    assert not it.lines("ready")
    late.touch()
    it.wait_until_serving()
    it.wait_until_logged("ready")


# Successors


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_ends_is_followed_by_another_in_its_place(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path) as it:
        victim, other = it.pid_of(0), it.pid_of(1)
        os.kill(victim, number)
        it.wait_for_lines("worker ready", 3)
        assert it.pid_of(0) != victim
        assert it.pid_of(1) == other
        (line,) = it.lines("worker ended; starting another one")
        assert line["worker"] == 0
        assert line["pause_seconds"] == 0
        assert line.get("signal", line.get("exit_code")) == ("SIGKILL" if number == signal.SIGKILL else 0)
        assert len(it.workers) == 2


def test_one_that_ends_again_and_again_is_followed_after_growing_pauses_and_the_other_serves(tmp_path: Path) -> None:
    fails = tmp_path / "fails"
    fails.mkdir()
    with running(tmp_path, "--fails", str(fails)) as it:
        victim = it.pid_of(0)
        (fails / "0").touch()
        os.kill(victim, signal.SIGKILL)
        lines = it.wait_for_lines("worker ended; starting another one", 5)
        assert [line["pause_seconds"] for line in lines] == [0.0, 0.05, 0.1, 0.2, 0.2]
        assert [line.get("exit_code") for line in lines] == [None, 7, 7, 7, 7]
        assert it.ask().startswith("1 ")
        (fails / "0").unlink()
        assert it.pid_of(0) != victim


def test_one_that_cannot_start_any_more_is_tried_again_while_the_other_serves(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    with running(tmp_path, "--model-dir", str(models)) as it:
        models.rmdir()
        os.kill(it.pid_of(0), signal.SIGKILL)
        lines = it.wait_for_lines("worker ended; starting another one", 3)
        assert [line.get("exit_code") for line in lines] == [None, 2, 2]
        assert "workers: wrong settings, worker 0 not started: Path does not point to a directory" in it.log.read_text()
        assert it.ask().startswith("1 ")
        models.mkdir()
        assert it.ask(worker=0)


def test_a_worker_that_follows_listens_once_it_is_ready(tmp_path: Path) -> None:
    late = tmp_path / "late"
    late.touch()
    with running(tmp_path, "--late", str(late)) as it:
        late.unlink()
        os.kill(it.pid_of(0), signal.SIGKILL)
        it.wait_for_lines("worker ended; starting another one", 1)
        for _ in range(20):
            # None of these connections finds a worker that is not ready.
            assert it.ask().startswith("1 ")
        late.touch()
        assert it.ask(worker=0)


def test_a_worker_that_hangs_is_ended_and_followed(tmp_path: Path) -> None:
    with running(tmp_path) as it:
        victim = it.pid_of(1)
        with pytest.raises(grpc.RpcError):
            it.ask(HANG, worker=1)
        assert it.lines("worker hangs; killing it") or it.wait_for_lines("worker hangs; killing it", 1)
        assert it.pid_of(1) != victim
        assert it.lines("worker ended; starting another one")[0]["signal"] == "SIGKILL"


def test_workers_that_were_stopped_for_a_while_all_together_are_left_alone(tmp_path: Path) -> None:
    with running(tmp_path) as it:
        before = {it.pid_of(0), it.pid_of(1)}
        # The signal stops all processes together, as in a paused container.
        it.signal_all(signal.SIGSTOP)
        time.sleep(LONG_ENOUGH)
        for process in reversed(it.family()):
            process.send_signal(signal.SIGCONT)
        assert {it.pid_of(0), it.pid_of(1)} == before


# Not starting


def test_a_worker_that_cannot_start_ends_the_whole_with_its_code(tmp_path: Path, run: Run) -> None:
    (tmp_path / "1").touch()
    it = run("--fails", str(tmp_path))
    assert it.process.wait(PATIENCE) == 7
    (line,) = it.lines("a worker cannot start; see its log lines above")
    assert line["exit_code"] == 7
    assert not it.lines("ready")


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_another_process_holds_is_told_before_there_are_workers(run: Run, shared: bool) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        it = run(port=port)
        assert it.process.wait(PATIENCE) == 1
        why = "it is in use; end the process that holds it, or choose another port"
        assert it.log.read_text() == f"workers: cannot listen on 127.0.0.1:{port}: {why}\n"


def test_a_port_for_metrics_that_is_taken_ends_it_too(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        it = run("--metrics-port", str(taken.getsockname()[1]))
        assert it.process.wait(PATIENCE) == 1
        assert "for metrics" in it.log.read_text()


# Ending


def test_all_workers_drain_at_the_same_time_and_calls_in_flight_are_answered(tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    with running(tmp_path) as it:
        channels = [grpc.insecure_channel(it.address, (("grpc.use_local_subchannel_pool", 1),)) for _ in range(16)]
        stubs = [pb_grpc.PredictorStub(channel) for channel in channels]
        reached = {asked(stub, WHO)[0] for stub in stubs}
        request = pb.PredictorPredictRequest(runId="any", document=f"wait {go_on}")
        calls = [stub.PredictorPredict.future(request, timeout=PATIENCE) for stub in stubs]
        family = it.family()
        it.process.send_signal(signal.SIGTERM)
        it.wait_for_lines("worker draining", 2)
        assert not any(call.done() for call in calls)
        go_on.touch()
        assert {call.result().label[0] for call in calls} == reached == {"0", "1"}
        assert it.process.wait(PATIENCE) == 0
        wait_until_ended(family)
        for channel in channels:
            channel.close()


def test_a_second_signal_does_not_wait_for_calls(tmp_path: Path) -> None:
    with running(tmp_path) as it, grpc.insecure_channel(it.address) as channel:
        request = pb.PredictorPredictRequest(runId="any", document=f"wait {tmp_path / 'never'}")
        call = pb_grpc.PredictorStub(channel).PredictorPredict.future(request, timeout=PATIENCE)
        asked(pb_grpc.PredictorStub(channel), WHO)
        it.process.send_signal(signal.SIGTERM)
        it.wait_until_logged("draining")
        it.process.send_signal(signal.SIGTERM)
        assert it.process.wait(PATIENCE) == 0
        assert call.exception() is not None


def test_a_worker_that_does_not_end_is_ended_and_the_exit_code_says_so(tmp_path: Path) -> None:
    with running(tmp_path, "--stays", "true", "--drain-grace-seconds", "0") as it:
        family = it.family()
        it.process.send_signal(signal.SIGTERM)
        assert it.process.wait(PATIENCE) == 1
        assert it.lines("workers do not end; killing them")[0]["workers"] == 2
        wait_until_ended(family)


@pytest.mark.parametrize("sent", ["ctrl-c", "to each process"])
def test_signals_that_reach_more_than_the_supervisor_drain_as_well(tmp_path: Path, sent: str) -> None:
    go_on = tmp_path / "go on"
    with running(tmp_path, group=True) as it, grpc.insecure_channel(it.address) as channel:
        stub = pb_grpc.PredictorStub(channel)
        request = pb.PredictorPredictRequest(runId="any", document=f"wait {go_on}")
        call = stub.PredictorPredict.future(request, timeout=PATIENCE)
        asked(stub, WHO)
        if sent == "ctrl-c":
            os.killpg(it.process.pid, signal.SIGINT)
        else:
            # Service managers send the signal to every process that a service has started.
            it.signal_all(signal.SIGTERM)
        it.wait_for_lines("worker draining", 2)
        go_on.touch()
        assert call.result().label
        assert it.process.wait(PATIENCE) == 0


def test_a_signal_during_the_start_ends_it(tmp_path: Path, run: Run) -> None:
    it = run("--late", str(tmp_path / "never"))
    it.wait_until_logged("worker listening")
    family = it.family()
    assert it.stop() == 0
    wait_until_ended(family)


def test_a_signal_during_a_pause_ends_it(tmp_path: Path) -> None:
    fails = tmp_path / "fails"
    fails.mkdir()
    with running(tmp_path, "--fails", str(fails)) as it:
        (fails / "0").touch()
        os.kill(it.pid_of(0), signal.SIGKILL)
        it.wait_for_lines("worker ended; starting another one", 4)
        assert it.stop() == 0


def test_workers_whose_supervisor_is_killed_answer_what_they_have_and_end(tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    with running(tmp_path) as it, grpc.insecure_channel(it.address) as channel:
        stub = pb_grpc.PredictorStub(channel)
        request = pb.PredictorPredictRequest(runId="any", document=f"wait {go_on}")
        call = stub.PredictorPredict.future(request, timeout=PATIENCE)
        asked(stub, WHO)
        workers = it.workers
        it.process.kill()
        it.wait_for_lines("worker draining", 2)
        go_on.touch()
        assert call.result().label
        wait_until_ended(workers)


def test_a_worker_that_hangs_does_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, "--drain-grace-seconds", "0") as it, grpc.insecure_channel(it.address) as channel:
        workers = it.workers
        request = pb.PredictorPredictRequest(runId="any", document=HANG)
        pb_grpc.PredictorStub(channel).PredictorPredict.future(request, timeout=PATIENCE)
        it.process.kill()
        wait_until_ended(workers)


def test_workers_end_whose_supervisor_is_killed_while_they_start(tmp_path: Path, run: Run) -> None:
    it = run()
    eventually(lambda: len(it.workers) == 2)
    workers = it.workers
    it.process.kill()
    wait_until_ended(workers)


# Metrics


def test_metrics_are_the_sums_of_all_workers_and_of_those_that_died(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, "--metrics-port", str(port)) as it:
        for _ in range(5):
            it.ask(worker=0)
        victim = it.pid_of(1)
        before = Exposition.at(port)
        counted = before.value("calls_total")
        assert counted == before.value("intent_request_seconds_count", method="Predictor/PredictorPredict", code="OK")
        assert before.value("intent_workers") == 2
        assert before.value("intent_worker_restarts_total") == 0
        assert before.values("process_resident_memory_bytes").keys() == {("0",), ("1",), ("supervisor",)}

        os.kill(victim, signal.SIGKILL)
        it.wait_for_lines("worker ready", 3)
        assert Exposition.at(port).value("calls_total") == counted
        it.ask(worker=1)
        after = Exposition.at(port)
        assert after.value("calls_total") > counted
        assert after.value("intent_worker_restarts_total") == 1
        assert after.value("intent_workers") == 2


def test_a_worker_that_hangs_does_not_keep_metrics_from_being_scraped(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, "--metrics-port", str(port)) as it:
        it.ask()
        counted = Exposition.at(port).value("calls_total")
        it.workers[0].send_signal(signal.SIGSTOP)
        it.workers[1].send_signal(signal.SIGSTOP)
        assert Exposition.at(port).value("calls_total") == counted
