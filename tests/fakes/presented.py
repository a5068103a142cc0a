"""A fake of a call as a transport presents it; a real call needs a socket, and a certificate needs a handshake."""

from __future__ import annotations


class FakePresented:
    """A call with the data that access and tracing read.

    Args:
        metadata: the call's metadata.
        names: the names in the caller's certificate.
    """

    def __init__(self, *metadata: tuple[str, str], names: tuple[str, ...] = ()) -> None:
        self.metadata = metadata
        self.names = names

    def metadatum(self, key: str) -> str | None:
        return next((value for name, value in self.metadata if name == key), None)

    def certificate(self) -> bytes | None:
        return None
