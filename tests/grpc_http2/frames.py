"""Random HTTP/2 frames of a peer: well formed, odd and damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEADER: Final = 9

Headers = Sequence[tuple[str, str]]


class FrameWriter:
    """Writer of the frames of one connection."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._encoder = hpack.Encoder()

    def headers(self, stream: int, headers: Headers, *, last: bool) -> list[bytes]:
        """Return a block of headers as one or two frames."""
        # Huffman coding is slow.
        block = self._encoder.encode(headers, huffman=self.random.random() < 0.1)
        flags = ["END_STREAM"] if last else []
        if self.random.random() < 0.8:
            return [HeadersFrame(stream, block, flags=[*flags, "END_HEADERS"]).serialize()]
        cut = self.random.randint(0, len(block))
        return [
            HeadersFrame(stream, block[:cut], flags=flags).serialize(),
            ContinuationFrame(stream, block[cut:], flags=["END_HEADERS"]).serialize(),
        ]

    def body(self, stream: int, body: bytes, *, last: bool) -> list[bytes]:
        """Return a body as frames, cut at random positions."""
        parts = list(self._cut(body)) or [b""]
        frames = []
        for index, part in enumerate(parts):
            is_last = last and index == len(parts) - 1
            frame = DataFrame(stream, part, flags=["END_STREAM"] if is_last else [])
            if self.random.random() < 0.1:
                frame.flags.add("PADDED")
                frame.pad_length = self.random.randint(0, 20)
            frames.append(frame.serialize())
        return frames

    def _cut(self, body: bytes) -> Iterator[bytes]:
        while body:
            size = self.random.choice([1, 4, 5, 6, 16_000] if len(body) < 100 else [100, 16_000])
            yield body[:size]
            body = body[size:]

    def odd(self, streams: Sequence[int]) -> bytes:
        """Return a frame that belongs to no message."""
        random = self.random
        stream = random.choice([*streams, 0, random.randint(0, 50)])
        some = random.randbytes(random.randint(0, 20))
        number = random.choice([0, 1, 100, 65_535, 1 << 20, (1 << 31) - 1])
        makes: list[Callable[[], Frame]] = [
            lambda: SettingsFrame(
                0, {random.randint(1, 8): random.choice([0, 1, 100, 65_535, 1 << 20, (1 << 31) - 1])}
            ),
            lambda: SettingsFrame(0, flags=["ACK"]),
            lambda: PingFrame(0, random.choice([b"12345678", b"keepaliv", b"farewell"])),
            lambda: PingFrame(0, random.choice([b"12345678", b"keepaliv", b"farewell"]), flags=["ACK"]),
            lambda: WindowUpdateFrame(stream, window_increment=number or 5),
            lambda: RstStreamFrame(stream or 1, error_code=random.randint(0, 13)),
            lambda: PriorityFrame(stream or 1, depends_on=random.randint(0, 9), stream_weight=random.randint(0, 255)),
            lambda: GoAwayFrame(0, last_stream_id=random.randint(0, 9), error_code=random.randint(0, 13)),
            lambda: DataFrame(stream or 1, some, flags=random.choice([[], ["END_STREAM"]])),
            lambda: ContinuationFrame(stream or 1, some, flags=random.choice([[], ["END_HEADERS"]])),
            lambda: PushPromiseFrame(stream or 1, promised_stream_id=2, data=some, flags=["END_HEADERS"]),
        ]
        if random.random() < 0.05:
            return raw_frame(random.randint(10, 255), random.randint(0, 255), stream, some)
        return random.choice(makes)().serialize()


def raw_frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Return a frame of any kind."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def damaged(frames: list[bytes], random: Random) -> list[bytes]:
    """Return the frames with a few faults."""
    frames = list(frames)
    for _ in range(random.choice([1, 1, 2, 5])):
        index = random.randrange(len(frames))
        if random.random() < 0.4:
            # Move, duplicate or drop a frame.
            frame = frames.pop(index)
            for _ in range(random.randrange(3) if frames else 1):
                frames.insert(random.randint(0, len(frames)), frame)
        else:
            frames[index] = _damaged(bytearray(frames[index]), random)
    return frames


def _damaged(frame: bytearray, random: Random) -> bytes:
    place = random.randrange(len(frame))
    fault = random.randrange(5)
    if fault == 0:
        frame[place] ^= 1 << random.randrange(8)
    elif fault == 1:
        del frame[place + 1 :]
    elif fault == 2:
        frame[min(place, _FRAME_HEADER - 1)] = random.randrange(256)
    elif fault == 3:
        frame[place:place] = random.randbytes(random.randint(1, 10))
    elif len(frame) > _FRAME_HEADER:
        # Change the type of the frame.
        frame[3] = random.randint(0, 10)
    return bytes(frame)


def in_chunks(data: bytes, random: Random) -> Iterator[bytes]:
    """Yield ``data`` in pieces, as a network might deliver it."""
    sizes = random.choice([[len(data) or 1], [50, 1000], [20_000], [1, 2, 9, 100] if len(data) < 2000 else [5000]])
    while data:
        size = random.choice(sizes)
        yield data[:size]
        data = data[size:]
