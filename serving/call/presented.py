"""The data of a call that identifies its caller."""

from __future__ import annotations

from typing import Protocol


class Presented(Protocol):
    """Data that a caller sent with a call. The same on every transport."""

    def metadatum(self, key: str) -> str | None:
        """Return the first value of a metadata key; ``None`` without one."""

    def certificate(self) -> bytes | None:
        """Return the caller's certificate in PEM, as verified by the transport; ``None`` without one."""
