from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator

import pytest

from serving.runtime.supervision.frames import MOST_BYTES, BadFrame, BlockingFrames, encode, read_message
from tests.builders import PATIENCE


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    with ours, theirs:
        yield ours, theirs


async def test_messages_go_both_ways_in_order_however_large(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    frames = BlockingFrames(theirs)
    reader, writer = await asyncio.open_connection(sock=ours)
    large = "ü" * (1 << 20)

    def send() -> None:
        for number in range(3):
            frames.send("metrics", number=number, families=large)

    task = asyncio.ensure_future(asyncio.to_thread(send))
    for number in range(3):
        assert await read_message(reader) == {"kind": "metrics", "number": number, "families": large}
    await task

    writer.write(encode("start", index=1) + encode("stop"))
    assert await asyncio.to_thread(frames.receive) == {"kind": "start", "index": 1}
    assert await asyncio.to_thread(frames.receive) == {"kind": "stop"}
    writer.close()
    assert await asyncio.to_thread(frames.receive) is None


async def test_threads_that_send_at_the_same_time_do_not_mix_their_messages(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    frames = BlockingFrames(theirs)
    reader, _ = await asyncio.open_connection(sock=ours)
    texts = [str(number) * (1 << 18) for number in range(4)]
    threads = [threading.Thread(target=frames.send, args=("metrics",), kwargs={"text": text}) for text in texts]
    for thread in threads:
        thread.start()
    received = [await read_message(reader) for _ in texts]
    assert sorted(message["text"] for message in received if message is not None) == texts
    for thread in threads:
        thread.join(PATIENCE)


async def test_the_end_of_the_other_side_is_seen_even_within_a_message(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = ends
    reader, writer = await asyncio.open_connection(sock=ours)
    theirs.sendall(encode("listening", address="x")[:-1])
    theirs.close()
    assert await read_message(reader) is None
    writer.close()


def test_whoever_sends_to_nobody_is_not_disturbed(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ours.close()
    frames = BlockingFrames(theirs)
    frames.send("ready")
    frames.send("ready")
    assert frames.receive() is None


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", MOST_BYTES + 1),
        struct.pack(">I", 3) + b"{]}",
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 2) + b"{}",
        struct.pack(">I", 2) + b"\xff\xff",
    ],
    ids=["too long", "no JSON", "no object", "no kind", "no text"],
)
async def test_what_is_no_message_is_told(data: bytes, ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    ours.sendall(data)
    with pytest.raises(BadFrame):
        BlockingFrames(theirs).receive()

    reader, writer = await asyncio.open_connection(sock=ours)
    theirs.sendall(data)
    with pytest.raises(BadFrame):
        await read_message(reader)
    writer.close()
