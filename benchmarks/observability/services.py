"""The measured services: each shape in each variant, all running at the same time, one under load at a time."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.calls import Call
from benchmarks.observability.results import Spans
from benchmarks.process_figures import cpu_seconds
from benchmarks.systems.base import wait_until_right
from benchmarks.systems.predictions import predict_call
from benchmarks.workload import MODELS
from peers.programs import Program, free_ports, running

NOTHING: Final = "off"
"""Name of the baseline that all variants are compared with."""

_SCRAPE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Variant:
    """Combination of metrics, traces and log lines that is switched on."""

    name: str
    title: str
    metrics: bool = False
    trace_share: float | None = None
    """Share of calls that the frontend traces; its predictor follows it. ``None``: no traces."""
    logs: bool = False
    """Whether each service logs a line for every call."""


VARIANTS: Final = (
    Variant("again", "nothing: other processes of the same, for the noise"),
    Variant("metrics", "metrics", metrics=True),
    Variant("traces", "traces of 1 % of the calls, 10 a second at most", trace_share=0.01),
    Variant("on", "metrics, and traces of 1 % of the calls, 10 a second at most", metrics=True, trace_share=0.01),
    Variant("all-traced", "metrics, and traces of all calls", metrics=True, trace_share=1.0),
    Variant("all-logged", "metrics, traces of 1 %, and a log line for every call", True, 0.01, logs=True),
)
SHAPES: Final[Mapping[str, str]] = {
    "http2": "two processes on http2",
    "grpcio": "two processes on grpcio",
    "one-process": "one process on http2",
}


@dataclass(frozen=True, slots=True)
class Observed:
    """A running variant."""

    variant: Variant
    call: Call
    programs: Sequence[Program]
    metrics: Sequence[int]
    """Metrics ports of its services."""

    def scrape(self) -> str:
        """Return the current metrics of all its services, scraped as Prometheus would."""
        texts = []
        for port in self.metrics:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_SCRAPE_SECONDS) as answer:
                texts.append(answer.read().decode())
        return "\n".join(texts)

    def processor_seconds(self) -> float:
        """Return the processor time that its services have used so far, in seconds."""
        return cpu_seconds(program.process.pid for program in self.programs)

    def checked(self) -> Spans:
        """Return the numbers of sent and dropped spans.

        Raises:
            AssertionError: metrics, arrived spans or log lines do not match the variant.
        """
        logs = [program.log for program in self.programs]
        told_calls = [sum(map(_tells_answer, log.open())) for log in logs]
        assert all(told_calls) if self.variant.logs else not any(told_calls), f"lines of calls: {told_calls}"
        if not self.variant.metrics:
            return Spans()
        told = self.scrape().splitlines()
        assert _sum(told, "intent_request_seconds_count"), "no call was counted"
        spans = Spans(_sum(told, "intent_trace_spans_sent_total"), _sum(told, "intent_trace_spans_dropped_total"))
        assert spans.sent or self.variant.trace_share is None, "no span has arrived"
        return spans


def _sum(told: Sequence[str], metric: str) -> int:
    return int(sum(float(line.split()[-1]) for line in told if line.startswith(metric)))


def _tells_answer(line: str) -> bool:
    return '"event": "call"' in line and '"code": "OK"' in line


@contextmanager
def services(shape: str, variants: Sequence[Variant], workplace: Path) -> Iterator[dict[str, Observed]]:
    """Start a shape in each of ``variants`` and with nothing on; yield once each has given a right answer.

    Raises:
        ProgramEnded: a service ended by itself.
        WrongAnswer: a service never gave the right answer.
    """
    with ExitStack() as stack:
        (receiver,) = free_ports(1)
        program = (sys.executable, "-m", "benchmarks.systems.programs.trace_receiver", str(receiver))
        stack.enter_context(running(program, workplace / "receiver.log"))
        started = {}
        for variant in (Variant(NOTHING, "nothing"), *variants):
            folder = workplace / variant.name
            folder.mkdir()
            started[variant.name] = _start(stack, shape, variant, receiver, folder)
        yield started


def _start(stack: ExitStack, shape: str, variant: Variant, receiver: int, folder: Path) -> Observed:
    port, inner, *metrics = free_ports(4)
    if shape == "one-process":
        commands = [_command("model_service", "http2", port)]
    else:
        routes = f"intent-classification=predictor://127.0.0.1:{inner}"
        commands = [
            _command("predictor", shape, inner),
            [*_command("frontend", shape, port), "--routes", routes],
        ]
    programs: list[Program] = []
    metrics = metrics[: len(commands)] if variant.metrics else []
    for number, command in enumerate(commands):
        if metrics:
            command += ["--metrics-port", str(metrics[number])]
        if variant.trace_share is not None:
            command += ["--trace-endpoint", f"127.0.0.1:{receiver}"]
            if command[2] != "predictor":
                command += ["--trace-share", str(variant.trace_share)]
                if variant.trace_share == 1.0:
                    # Trace all calls; the other variants keep the default limit.
                    command += ["--traces-per-second", "0"]
        if variant.logs:
            command += ["--log-calls", "all"]
        programs.append(stack.enter_context(running(command, folder / f"{command[2]}.log")))
    call = predict_call(f"127.0.0.1:{port}")
    wait_until_right(call, programs)
    return Observed(variant, call, programs, metrics)


def _command(program: str, transport: str, port: int) -> list[str]:
    common = ["--model-dir", str(MODELS), "--transport", transport, "--port", str(port), "--log-format", "json"]
    return [sys.executable, "-m", program, *common]
