"""A call as its transport has it: what the caller sent along, and the way back. The same on every transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from grpc import StatusCode

from grpc_http2.server.call import Ended
from serving.access.presented import Presented

__all__ = ["CERTIFICATE_KEY", "ContextExchange", "Ended", "Exchange", "Metadata", "Presented", "RawMetadata"]

Metadata: TypeAlias = Sequence[tuple[str, str]]

RawMetadata: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Metadata as HTTP/2 sends them: names in lower case, values of printable ASCII."""

CERTIFICATE_KEY: Final = "x509_pem_cert"
"""Where the ``auth_context()`` of a grpcio context has the caller's certificate, in PEM."""


class Exchange(Presented, Protocol):
    """One call: what came, and the way back. It is ended once, by :meth:`answer` or :meth:`fail`."""

    deadline: float | None
    """When the caller waits no more, in seconds of ``time.monotonic()``; ``None``: the caller did not say. The
    transport watches what is set here."""
    on_end: Callable[[Ended], object] | None
    """Told when the caller leaves, and when the deadline passes."""

    def answer(self, response: Any, metadata: RawMetadata = ()) -> None:
        """Give the response, and metadata with it. Does nothing where the caller has left."""

    def fail(self, code: StatusCode, message: str, metadata: Metadata = ()) -> None:
        """Give a status instead. Does nothing where the caller has left."""


class ContextExchange:
    """What a caller sent along, read from the context that grpcio gives a servicer."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def metadatum(self, key: str) -> str | None:
        """Return the value of one key of the metadata; ``None`` without one."""
        pairs: Iterable[tuple[str, Any]] = self._context.invocation_metadata() or ()
        return next((str(value) for name, value in pairs if name == key), None)

    def certificate(self) -> bytes | None:
        """Return the caller's certificate in PEM; ``None`` without one."""
        presented = self._context.auth_context().get(CERTIFICATE_KEY)
        return bytes(presented[0]) if presented else None

    def caller_deadline(self) -> float | None:
        """Return when the caller waits no more, in seconds of ``time.monotonic()``; ``None``: it did not say."""
        remaining = self._context.time_remaining()
        return None if remaining is None else time.monotonic() + remaining
