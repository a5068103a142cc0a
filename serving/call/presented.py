"""What a caller sent along with a call, as far as it tells who the caller is."""

from __future__ import annotations

from typing import Protocol


class Presented(Protocol):
    """What a caller sent along with a call. The same on every transport."""

    def metadatum(self, key: str) -> str | None:
        """Return the value of one key of the metadata, the first where there are several; ``None`` without one."""

    def certificate(self) -> bytes | None:
        """Return the caller's certificate, which the transport has verified, in PEM; ``None`` without one."""
