"""Bodies of requests, read up to a bound, and bodies of answers, compressed if callers accept that."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import Receive

from serving.domain.errors import CallerLeft, InvalidRequest, OutOfCapacity

# `deflate` in HTTP is zlib's container: RFC 9110, section 8.4.1.
_WINDOWS: Final = {"gzip": 31, "deflate": 15}
_PLAIN: Final = ("", "identity")
# Below this size, compression takes longer than it saves.
_SMALLEST_COMPRESSED: Final = 1024
_FAST: Final = 1
_SIZE: Final = re.compile("[0-9]{1,18}")


class BodyTooLarge(OutOfCapacity):
    """The body has more bytes than the limit, or would have when decompressed."""

    http_status = 413


class UnknownEncoding(InvalidRequest):
    """The body has an unsupported content encoding."""

    http_status = 415


def size_in(header: str) -> int | None:
    """Return the number of bytes that a header gives; ``None`` if it gives none."""
    return int(header) if _SIZE.fullmatch(header) else None


async def body_of(receive: Receive, headers: Mapping[str, str], limit: int) -> bytes:
    """Return the decompressed body of a request; both it and the body as sent have at most ``limit`` bytes.

    Raises:
        CallerLeft: the caller disconnected before the body was complete.
        BodyTooLarge: the body is too large.
        UnknownEncoding: the content encoding is not supported.
        InvalidRequest: the body is not compressed as its header says.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in _PLAIN and encoding not in _WINDOWS:
        raise UnknownEncoding(
            "the body's content-encoding is not supported; send the body plain, or compressed with gzip or deflate"
        )
    # Refuse a body that is announced as too large before any of it is stored.
    _check_size(size_in(headers.get("content-length", "")) or 0, limit)
    body = await _gathered(receive, limit)
    return body if encoding in _PLAIN else _opened(body, _WINDOWS[encoding], limit)


async def _gathered(receive: Receive, limit: int) -> bytes:
    body = bytearray()
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise CallerLeft("the caller left before its request was complete")
        body += event.get("body", b"")
        _check_size(len(body), limit)
        more = event.get("more_body", False)
    return bytes(body)


def _opened(body: bytes, window: int, limit: int) -> bytes:
    decompressor = zlib.decompressobj(wbits=window)
    try:
        opened = decompressor.decompress(body, limit + 1)
    except zlib.error as error:
        raise _damaged() from error
    _check_size(len(opened), limit)
    if not decompressor.eof or decompressor.unused_data:
        raise _damaged()
    return opened


def _damaged() -> InvalidRequest:
    return InvalidRequest("the body is not compressed as its content-encoding header says, or is cut off")


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise BodyTooLarge(f"the body is larger than the limit of {limit} bytes")


def compressed(body: bytes, accepted: str, headers: MutableHeaders) -> bytes:
    """Return the body, compressed if ``accepted`` (``accept-encoding``) allows it; ``headers`` are set accordingly."""
    encoding = _first_known(accepted)
    if encoding is None or len(body) < _SMALLEST_COMPRESSED:
        return body
    compressor = zlib.compressobj(_FAST, wbits=_WINDOWS[encoding])
    body = compressor.compress(body) + compressor.flush()
    headers["content-encoding"] = encoding
    headers["content-length"] = str(len(body))
    return body


def _first_known(accepted: str) -> str | None:
    offers = (offer.replace(" ", "").lower().partition(";") for offer in accepted.split(","))
    # A weight of 0 excludes an encoding; other weights are ignored, because both encodings are equally good.
    return next((name for name, _, weight in offers if name in _WINDOWS and weight.rstrip("0.") != "q="), None)
