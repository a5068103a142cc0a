"""Amount of work that one turn takes from a connection."""

from __future__ import annotations

from dataclasses import asdict

from hyperframe.frame import SettingsFrame

from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.protection.pacing import CallPacing, ReadPacing
from tests.grpc_http2.server.peers import peer_of
from tests.grpc_http2.server.service import hosted


def test_a_turn_takes_few_calls_until_answers_turn_out_to_be_small() -> None:
    pacing = CallPacing(1 << 20)
    assert pacing.calls_of_a_turn() < 10
    for _ in range(50):
        pacing.count(100)
    assert pacing.calls_of_a_turn() > 1000
    for _ in range(50):
        pacing.count(1 << 20)
    assert 0 < pacing.calls_of_a_turn() < 5


def test_reads_grow_with_what_is_of_use_and_shrink_with_what_is_not() -> None:
    reading = ReadPacing(memoryview(bytearray(16_384)))
    assert len(reading.buffer) == 2_048
    for size in (4_096, 8_192, 16_384, 16_384):
        reading.count(len(reading.buffer), 0)
        assert len(reading.buffer) == size
    reading.count(16_384, 100)
    assert len(reading.buffer) == 16_384
    reading.count(16_384, 16_000)
    assert len(reading.buffer) == 2_048
    reading.count(100, 0)
    assert len(reading.buffer) == 2_048


async def test_of_hundreds_of_calls_in_one_read_few_are_served_before_answers_are_read() -> None:
    async with (
        hosted(max_unsent_connection_bytes=1_000_000, min_ping_seconds=0.0) as served,
        peer_of(served.port, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as peer,
    ):
        await peer.ping()
        with peer.gathering() as written:
            streams = [peer.call(b"size 100000") for _ in range(200)]
        peer.write(bytes(written))
        for _ in range(3):
            await peer.ping()
        assert served.service.calls < 50
        peer.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1 << 20}))
        for stream in streams:
            assert len((await peer.response(stream)).message) == 100_000


async def test_all_unread_answers_together_are_bounded() -> None:
    settings = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}
    limits = ServerLimits(max_unsent_server_bytes=500_000, max_unsent_bytes=10_000, min_ping_seconds=0.0)
    async with (
        hosted(**asdict(limits)) as served,
        peer_of(served.port, settings=settings) as first,
        peer_of(served.port, settings=settings) as second,
        peer_of(served.port) as third,
    ):
        for peer in (first, second):
            for _ in range(40):
                peer.call(b"size 20000")
                await peer.ping()
        assert served.server.unsent_bytes < 900_000
        assert len((await third.asked(b"size 20000")).message) == 20_000
