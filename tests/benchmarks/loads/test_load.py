from __future__ import annotations

import pytest

from benchmarks.loads.calls import WrongAnswer
from benchmarks.loads.load import (
    Latency,
    NotUnderstood,
    Summary,
    connections_and_streams,
    parse_log,
    parse_summary,
    percentile,
)

OUTPUT = """\
starting benchmark...
spawning thread #0: 8 total client(s). 1200 total requests
Application protocol: h2c
progress: 100% done

finished in 245.96ms, 4878.80 req/s, 341.40KB/s
requests: 1200 total, 1200 started, 1200 done, 1198 succeeded, 2 failed, 2 errored, 0 timeout
status codes: 1198 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 83.97KB (85989) total, 2.62KB (2682) headers (space savings 95.74%), 31.64KB (32400) data
                     min         max         mean         sd        +/- sd
time for request:     2.63ms     24.29ms     12.63ms      3.16ms    72.83%
"""


def test_the_summary_is_read() -> None:
    assert parse_summary(OUTPUT) == Summary(1200, 1198, 4878.8, 32400)


def test_a_run_that_could_not_connect_is_an_error() -> None:
    with pytest.raises(NotUnderstood, match="connection refused"):
        parse_summary("starting benchmark...\n[ERROR] connection refused\n")


def test_the_log_gives_each_requests_time() -> None:
    assert parse_log("1763697975000000\t200\t950\n1763697975000100\t200\t1050\n") == [950, 1050]


@pytest.mark.parametrize("status", [-1, 503])
def test_a_failed_request_in_the_log_is_a_wrong_answer(status: int) -> None:
    with pytest.raises(WrongAnswer, match=f"HTTP status {status}"):
        parse_log(f"1763697975000000\t{status}\t950\n")


def test_another_form_of_log_is_not_guessed_at() -> None:
    with pytest.raises(NotUnderstood, match="has the line"):
        parse_log("200 950\n")


def test_latency_is_in_milliseconds_whatever_the_order() -> None:
    latency = Latency.of([100_000, *([1000] * 97), 2000, 3000])

    assert latency == Latency(mean=2.02, p50=1.0, p90=1.0, p99=3.0)


@pytest.mark.parametrize(("percent", "expected"), [(50, 2), (75, 3), (99, 4), (100, 4)])
def test_a_percentile_is_one_of_the_values(percent: int, expected: int) -> None:
    assert percentile([1, 2, 3, 4], percent) == expected


@pytest.mark.parametrize(
    ("in_flight", "expected"), [(1, (1, 1)), (4, (4, 1)), (8, (8, 1)), (64, (8, 8)), (256, (8, 32))]
)
def test_requests_in_flight_are_spread_over_connections(in_flight: int, expected: tuple[int, int]) -> None:
    assert connections_and_streams(in_flight) == expected


def test_each_request_in_flight_can_have_a_connection_of_its_own() -> None:
    assert connections_and_streams(500, 500) == (500, 1)


@pytest.mark.parametrize("in_flight", [-8, 0, 9, 100])
def test_what_cannot_be_spread_evenly_is_refused(in_flight: int) -> None:
    with pytest.raises(ValueError, match="in flight"):
        connections_and_streams(in_flight)
