from __future__ import annotations

from dataclasses import dataclass, replace

from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.protection.request_bytes import RequestBytes

LIMITS = replace(ServerLimits(), max_message_bytes=10, max_buffered_connection_bytes=30, max_buffered_bytes=50)


@dataclass
class Counted:
    held_bytes: int = 0


def test_one_caller_may_have_the_bytes_of_a_connection_held() -> None:
    held = RequestBytes(Counted(), LIMITS)
    held.hold(30)
    assert not held.are_too_many()
    held.hold(1)
    assert held.are_too_many()
    held.hold(-1)
    assert not held.are_too_many()


def test_all_callers_may_have_the_bytes_of_the_server_and_one_message_held() -> None:
    server = Counted()
    several = [RequestBytes(server, LIMITS) for _ in range(3)]
    for held in several:
        held.hold(20)
    assert not any(held.are_too_many() for held in several)
    several[0].hold(1)
    assert all(held.are_too_many() for held in several)


def test_a_connection_may_hold_two_of_the_largest_messages() -> None:
    held = RequestBytes(Counted(), replace(LIMITS, max_buffered_connection_bytes=1))
    held.hold(20)
    assert not held.are_too_many()
    held.hold(1)
    assert held.are_too_many()
