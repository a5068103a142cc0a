"""gRPC over HTTP/2 as bytes: messages, deadlines, statuses, metadata.

The format follows gRPC's ``PROTOCOL-HTTP2.md`` and ``compression.md``.
"""

from __future__ import annotations

import base64
import binascii
import functools
import itertools
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote, unquote

from grpc import StatusCode

Header = tuple[bytes, bytes]
Metadatum = tuple[str, str | bytes]

IDENTITY: Final = b"identity"
DEFLATE: Final = b"deflate"
GZIP: Final = b"gzip"
ENCODINGS: Final = b"identity,deflate,gzip"

_PREFIX: Final = struct.Struct(">BI")
PREFIX_BYTES: Final = _PREFIX.size
"""Size of the prefix of a message, in bytes: a flag for compression, and the length of the message."""
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])\Z")
_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_KEY: Final = re.compile(r"[0-9a-z_.\-]+\Z")
# Printable characters other than the percent sign are not escaped.
_PLAIN: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_WINDOWS: Final = {DEFLATE: 15, GZIP: 31}
_OK: Final = (b"grpc-status", b"0")
_HEADER_OVERHEAD: Final = 32
_TIMEOUT_LIMIT: Final = 10**8
_CODES: Final = {b"%d" % code.value[0]: code for code in StatusCode}
_CODES_OF_HTTP: Final = {
    b"400": StatusCode.INTERNAL,
    b"401": StatusCode.UNAUTHENTICATED,
    b"403": StatusCode.PERMISSION_DENIED,
    b"404": StatusCode.UNIMPLEMENTED,
    b"429": StatusCode.UNAVAILABLE,
    b"502": StatusCode.UNAVAILABLE,
    b"503": StatusCode.UNAVAILABLE,
    b"504": StatusCode.UNAVAILABLE,
}
PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
"""The only one of gRPC's own names that servicers set: when a call may be retried (proposal A6)."""
# Names reserved for gRPC and HTTP/2; all other names are metadata.
_OWN_NAMES: Final = frozenset({b"host", b"te", b"content-type", b"content-length"})


class WireError(Exception):
    """Error for received data that is not gRPC, or that exceeds a limit.

    Args:
        code: status of the call.
        message: message for the caller.
    """

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def seconds_of_timeout(value: bytes) -> float:
    """Return the seconds of a ``grpc-timeout`` header. Raises WireError."""
    match = _TIMEOUT.match(value)
    if match is None:
        raise WireError(StatusCode.INTERNAL, "the grpc-timeout header is not a number of eight digits and a unit")
    return int(match[1]) * _SECONDS[match[2]]


def status_headers(code: StatusCode, message: str, metadata: Iterable[Metadatum]) -> list[Header]:
    """Return the trailers that end a call."""
    headers = [_OK if code is StatusCode.OK else (b"grpc-status", b"%d" % code.value[0])]
    if message:
        headers.append((b"grpc-message", quote(message, safe=_PLAIN, errors="replace").encode()))
    return headers + metadata_headers(metadata)


def metadata_headers(metadata: Iterable[Metadatum]) -> list[Header]:
    """Return metadata as headers. Raises ValueError if a key or a value cannot be sent."""
    return [(_header_name(key), _header_value(key, value)) for key, value in metadata]


def header_bytes(headers: Sequence[Header]) -> int:
    """Return the size of a header list as HTTP/2 counts it (RFC 9113, section 6.5.2)."""
    return sum(map(len, itertools.chain.from_iterable(headers))) + _HEADER_OVERHEAD * len(headers)


def metadata_of(headers: Iterable[Header]) -> tuple[Metadatum, ...]:
    """Return the metadata among request headers. Raises WireError if a binary value is not base64."""
    return tuple(_metadata(headers))


def _metadata(headers: Iterable[Header]) -> Iterator[Metadatum]:
    for name, value in headers:
        if name in _OWN_NAMES or name[:5] == b"grpc-" or name[:1] == b":":
            continue
        key = name.decode("ascii", "replace")
        if not key.endswith("-bin"):
            yield key, value.decode("latin-1")
            continue
        # Values of one key may be joined by commas, which do not occur in base64.
        for part in value.split(b","):
            yield key, _from_base64(part.strip())


def timeout_of_seconds(seconds: float) -> bytes:
    """Return the ``grpc-timeout`` header for ``seconds``, rounded down to what eight digits can hold."""
    for unit, size in (b"u", 1e-6), (b"m", 1e-3), (b"S", 1.0):
        amount = int(seconds / size)
        if amount < _TIMEOUT_LIMIT:
            return b"%d%b" % (max(amount, 0), unit)
    return b"%dS" % (_TIMEOUT_LIMIT - 1)


def status_of(headers: Mapping[bytes, bytes]) -> tuple[StatusCode, str] | None:
    """Return the status and its message from trailers; ``None`` if the trailers have no status."""
    value = headers.get(b"grpc-status")
    if value is None:
        return None
    code = _CODES.get(value, StatusCode.UNKNOWN)
    return code, unquote(headers.get(b"grpc-message", b"").decode("latin-1"), errors="replace")


def code_of_http(status: bytes) -> StatusCode:
    """Return gRPC's code for an HTTP status without a gRPC status (``http-grpc-status-mapping.md``)."""
    return _CODES_OF_HTTP.get(status, StatusCode.UNKNOWN)


def _from_base64(value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error as error:
        raise WireError(StatusCode.INTERNAL, "a binary metadata value is not base64") from error


# A service sends few distinct keys.
@functools.lru_cache(maxsize=1024)
def _header_name(key: str) -> bytes:
    key = key.lower()
    if not _KEY.match(key) or (key.startswith("grpc-") and key != PUSHBACK_KEY):
        raise ValueError(f"{key!r} is not a metadata key")
    return key.encode("ascii")


def _header_value(key: str, value: str | bytes) -> bytes:
    if key[-4:].lower() == "-bin":
        return base64.b64encode(value if isinstance(value, bytes) else value.encode()).rstrip(b"=")
    text = value.decode("ascii") if isinstance(value, bytes) else value
    if not (text.isascii() and text.isprintable()):
        raise ValueError(f"the value of {key!r} is not printable ASCII; its key must end in -bin")
    return text.encode("ascii")


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    """Return ``message`` with its length prefix."""
    if compressed:
        compressor = zlib.compressobj(wbits=_WINDOWS[GZIP])
        message = compressor.compress(message) + compressor.flush()
        return _PREFIX.pack(True, len(message)) + message
    return b"\0" + len(message).to_bytes(4, "big") + message


class MessageReader:
    """Assembles messages from the pieces of a body.

    Args:
        limit: maximum size of a message, in bytes, compressed or not.
        encoding: value of ``grpc-encoding``.

    Raises:
        WireError: from :meth:`feed` and :meth:`end`.
    """

    def __init__(self, limit: int, encoding: bytes) -> None:
        self._limit = limit
        self._encoding = encoding
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """Add a piece; return the messages that it completes."""
        if not self._buffer and len(chunk) >= _PREFIX.size:
            # Nearly every piece is exactly one message.
            flag, size = _PREFIX.unpack_from(chunk)
            if not flag and size == len(chunk) - _PREFIX.size and size <= self._limit:
                return (chunk[_PREFIX.size :],)
        self.take(chunk)
        messages = []
        while (message := self.next()) is not None:
            messages.append(message)
        return messages

    def take(self, chunk: bytes) -> None:
        """Add a piece, whose messages :meth:`next` returns."""
        self._buffer += chunk

    def next(self) -> bytes | None:
        """Return the next message, ``None`` if it is not complete.

        Messages are decompressed one by one: together, those of one small piece may be a thousand times as large.
        """
        if len(self._buffer) < _PREFIX.size:
            return None
        flag, size = _PREFIX.unpack_from(self._buffer)
        # A message that is too large is refused when its size is announced, before it is buffered.
        self._check_size(size)
        end = _PREFIX.size + size
        if len(self._buffer) < end:
            return None
        message = bytes(self._buffer[_PREFIX.size : end])
        del self._buffer[:end]
        return self._opened(flag, message)

    @property
    def is_empty(self) -> bool:
        """Whether all added bytes have been returned in messages."""
        return not self._buffer

    def end(self) -> None:
        """Check that the body does not end in the middle of a message."""
        if self._buffer:
            raise WireError(StatusCode.INTERNAL, "the request ends in the middle of a message")

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            raise WireError(StatusCode.RESOURCE_EXHAUSTED, f"a message is larger than the limit of {self._limit} bytes")

    def _opened(self, flag: int, message: bytes) -> bytes:
        if not flag:
            return message
        window = _WINDOWS.get(self._encoding)
        if flag != 1 or window is None:
            raise WireError(
                StatusCode.INTERNAL, "a message is compressed, but the call does not declare the compression"
            )
        decompressor = zlib.decompressobj(wbits=window)
        try:
            opened = decompressor.decompress(message, self._limit + 1)
        except zlib.error as error:
            raise WireError(StatusCode.INTERNAL, "a compressed message is damaged") from error
        self._check_size(len(opened))
        if not decompressor.eof:
            raise WireError(StatusCode.INTERNAL, "a compressed message is damaged")
        return opened
