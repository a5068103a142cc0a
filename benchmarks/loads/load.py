"""Load from h2load: its command line, and the parsing of its output and log.

h2load counts HTTP statuses, and a gRPC error has HTTP status 200 too. Therefore the same bytes are sent through a gRPC
client before and after each run, and a run counts only if its responses carried as many bytes of data as right answers
do: an error has no message at all.
"""

from __future__ import annotations

import math
import re
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.loads.calls import Call, WrongAnswer, ask, framed

CONNECTIONS: Final = 8
"""Default number of connections that share the requests in flight."""
WHERE_TO_GET_IT: Final = "h2load is not installed; on Debian and Ubuntu: apt-get install nghttp2-client"

_RUN_SECONDS: Final = 600

_FINISHED: Final = re.compile(r"^finished in \S+, (?P<rate>[\d.]+) req/s", re.MULTILINE)
_REQUESTS: Final = re.compile(
    r"^requests: (?P<total>\d+) total, \d+ started, \d+ done, (?P<succeeded>\d+) succeeded", re.MULTILINE
)
_TRAFFIC: Final = re.compile(r"^traffic: .*\((?P<data>\d+)\) data", re.MULTILINE)


class NotUnderstood(Exception):
    """h2load failed, or its output has an unknown form."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures that h2load prints."""

    requests: int
    succeeded: int
    requests_per_second: float
    data_bytes: int
    """Bytes in the DATA frames of all responses."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Times from a request to the end of its response, in milliseconds."""

    mean: float
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, microseconds: Sequence[int]) -> Latency:
        """Return the figures of times in microseconds."""
        ordered = sorted(microseconds)
        return cls(
            statistics.fmean(ordered) / 1e3,
            percentile(ordered, 50) / 1e3,
            percentile(ordered, 90) / 1e3,
            percentile(ordered, 99) / 1e3,
        )


@dataclass(frozen=True, slots=True)
class Timed:
    """One run in which every answer was right."""

    requests: int
    requests_per_second: float
    latency: Latency

    @property
    def seconds(self) -> float:
        """Duration of the run, in seconds."""
        return self.requests / self.requests_per_second


def percentile(ordered: Sequence[int], percent: int) -> int:
    """Return the least of ``ordered`` (ascending, not empty) that ``percent`` percent of the values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def connections_and_streams(in_flight: int, most_connections: int = CONNECTIONS) -> tuple[int, int]:
    """Return the number of connections, and of streams on each, that keep ``in_flight`` requests in flight.

    Raises:
        ValueError: the requests cannot be spread evenly over the connections.
    """
    connections = min(in_flight, most_connections)
    if in_flight < 1 or in_flight % connections:
        raise ValueError(f"{in_flight} in flight: must be below {most_connections}, or a multiple of it")
    return connections, in_flight // connections


def parse_summary(output: str) -> Summary:
    """Return the figures in the output of h2load.

    Raises:
        NotUnderstood: the figures are missing.
    """
    finished, requests, traffic = (pattern.search(output) for pattern in (_FINISHED, _REQUESTS, _TRAFFIC))
    if finished is None or requests is None or traffic is None:
        raise NotUnderstood(f"h2load printed no figures: {output.strip()[-300:]}")
    return Summary(int(requests["total"]), int(requests["succeeded"]), float(finished["rate"]), int(traffic["data"]))


def parse_log(log: str) -> list[int]:
    """Return the microseconds of each request in h2load's log, whose columns are start, HTTP status and duration.

    Raises:
        NotUnderstood: a line has another form.
        WrongAnswer: a request had a status other than 200.
    """
    times = []
    for line in log.splitlines():
        try:
            _, status, microseconds = (int(column) for column in line.split("\t")[:3])
        except ValueError as error:
            raise NotUnderstood(f"h2load's log has the line {line!r}") from error
        if status != 200:
            raise WrongAnswer(f"a request under load ended with HTTP status {status}")
        times.append(microseconds)
    return times


def timed(call: Call, *, in_flight: int, requests: int, workplace: Path, most_connections: int = CONNECTIONS) -> Timed:
    """Make ``call`` many times and return the figures.

    Args:
        call: the call that every request makes.
        in_flight: number of requests in flight.
        requests: total number of requests.
        workplace: folder for the files of the run.
        most_connections: maximum number of connections that share the requests in flight.

    Raises:
        WrongAnswer: not every answer was right.
        NotUnderstood: h2load failed.
    """
    due = requests * len(framed(ask(call)))
    body, log = workplace / "body.bin", workplace / "h2load.log"
    body.write_bytes(call.framed)
    log.unlink(missing_ok=True)
    connections, streams = connections_and_streams(in_flight, most_connections)
    headers = (("content-type", "application/grpc"), ("te", "trailers"), *call.metadata)
    command = (
        *("h2load", "-n", str(requests), "-c", str(connections), "-m", str(streams), "-t", "1", "-d", str(body)),
        *(part for name, value in headers for part in ("-H", f"{name}: {value}")),
        *("--log-file", str(log)),
        f"{'http' if call.authority is None else 'https'}://{call.address}{call.method}",
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False)
    summary = parse_summary(done.stdout + done.stderr)
    times = parse_log(log.read_text())
    if summary.succeeded != requests or len(times) != requests:
        raise WrongAnswer(f"{requests - summary.succeeded} of {requests} requests under load failed")
    if summary.data_bytes != due:
        raise WrongAnswer(
            f"the answers under load had {summary.data_bytes} bytes instead of {due}: some were errors of gRPC"
        )
    ask(call)
    return Timed(requests, summary.requests_per_second, Latency.of(times))


def check_installed() -> None:
    """Raise :class:`FileNotFoundError`, which names the package to install, if h2load is missing."""
    if shutil.which("h2load") is None:
        raise FileNotFoundError(WHERE_TO_GET_IT)
