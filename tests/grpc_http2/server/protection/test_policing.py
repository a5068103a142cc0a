"""Limits on the cost of a connection apart from its calls, on a clock that a test moves."""

from __future__ import annotations

from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.protection.policing import IdleBytes, PingPolice

LIMITS = ServerLimits(min_ping_seconds=1.0, max_ping_strikes=2, idle_bytes=1_000, idle_bytes_per_second=100)


def test_pings_that_keep_their_distance_are_no_strikes() -> None:
    police = PingPolice(LIMITS)
    assert not any(police.is_too_many(float(second)) for second in range(100))


def test_the_third_ping_that_comes_too_soon_is_too_many() -> None:
    police = PingPolice(LIMITS)
    assert [police.is_too_many(moment) for moment in (0.0, 0.1, 5.0, 5.1, 5.2)] == [False, False, False, False, True]


def test_what_is_sent_to_a_caller_forgives_its_pings() -> None:
    police = PingPolice(LIMITS)
    for _ in range(10):
        assert not any(police.is_too_many(0.0) for _ in range(3))
        police.forgive()


def test_bytes_without_use_are_borne_up_to_the_allowance_which_comes_back_with_time() -> None:
    idle = IdleBytes(LIMITS, 0.0)
    assert not idle.is_too_much(1_000, 0.0)
    assert not idle.is_too_much(100, 1.0)
    assert idle.is_too_much(101, 2.0)


def test_the_allowance_does_not_grow_beyond_its_bound() -> None:
    idle = IdleBytes(LIMITS, 0.0)
    idle.earn(1 << 30)
    assert not idle.is_too_much(1_000, 1_000.0)
    assert idle.is_too_much(1, 1_000.0)


def test_a_part_of_what_is_written_is_earned() -> None:
    idle = IdleBytes(LIMITS, 0.0)
    assert not idle.is_too_much(1_000, 0.0)
    idle.earn(6_400)
    assert not idle.is_too_much(100, 0.0)
    assert idle.is_too_much(1, 0.0)
