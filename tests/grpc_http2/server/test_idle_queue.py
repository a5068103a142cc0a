"""Connections that send much without use are read on one after the other."""

from __future__ import annotations

import pytest

from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.policing import IdleBytes, IdleQueue

LIMITS = ServerLimits(idle_bytes=1 << 18, idle_bytes_per_second=1 << 10, idle_bytes_per_second_of_all=1000)


def test_many_that_send_without_use_are_read_at_one_rate_together() -> None:
    queue = IdleQueue(LIMITS)
    assert [queue.wait(500, 0.0) for _ in range(4)] == pytest.approx([0.0, 0.5, 1.0, 1.5])


def test_nobody_waits_where_little_comes_in_the_time() -> None:
    queue = IdleQueue(LIMITS)
    assert [queue.wait(500, float(second)) for second in range(5)] == [0.0] * 5


def test_a_wait_has_a_bound_however_many_there_are() -> None:
    queue = IdleQueue(LIMITS)
    assert max(queue.wait(2000, 0.0) for _ in range(1000)) <= 5.0


def test_what_honest_clients_send_is_not_suspicious() -> None:
    idle = IdleBytes(LIMITS, 0.0)
    suspicious = []
    for count in (17_000, 20_000):
        idle.is_too_much(count, 0.0)
        suspicious.append(idle.is_suspicious)
    # What is written to a client earns the bytes that make room for it.
    idle.earn(1 << 22)
    suspicious.append(idle.is_suspicious)
    assert suspicious == [False, True, False]
