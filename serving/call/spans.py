"""Interface of recorded traces for the code on a request's path. Imports no library: most processes need none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

Attribute: TypeAlias = str | int | float | bool
Kind = Literal["internal", "client"]
"""Kind of a span: work of this process, or a call to another one."""


class Span(Protocol):
    """A piece of work with a start, an end and a position in a trace. Never receives a document's text.

    Work that is not recorded has ``None`` instead of a span.
    """

    @property
    def trace_id(self) -> str:
        """Id of the span's trace, as 32 hexadecimal digits."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata that propagates the trace to another service."""

    def child(
        self, name: str, kind: Kind = "internal", *, since: int | None = None, links: Sequence[Span] = ()
    ) -> Span:
        """Return a new span for a part of this work, which starts now.

        Args:
            name: one of a few names, the same for all work of its kind.
            kind: whether the part is a call to another service.
            since: start of the part in nanoseconds of Unix time, if earlier than now.
            links: spans of other traces that the part also belongs to.
        """

    def set_attribute(self, name: str, value: Attribute) -> None:
        """Add an attribute."""

    def end(self, error: str = "") -> None:
        """End the span; ``error`` names what went wrong. Further calls have no effect."""
