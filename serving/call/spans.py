"""What rooms on a request's way see of a trace, where one is recorded. Knows no library: most processes need none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

Attribute: TypeAlias = str | int | float | bool
Kind = Literal["internal", "client"]
"""Of a part: work of this process, or a call to another."""


class Span(Protocol):
    """A piece of work with its beginning, its end and its place in a trace. Never told a document's text.

    What is not recorded has none: ``None`` stands for it.
    """

    @property
    def trace_id(self) -> str:
        """The trace that it belongs to, in 32 hexadecimal digits."""

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what carries the trace on to another service."""

    def child(
        self, name: str, kind: Kind = "internal", *, since: int | None = None, links: Sequence[Span] = ()
    ) -> Span:
        """Return a part of this piece of work, which begins now.

        Args:
            name: one of few, and the same for all work of its kind.
            kind: whether it is a call to another service.
            since: when it began, in nanoseconds of Unix time, where that was earlier.
            links: work of other traces that it belongs to as well.
        """

    def tell(self, name: str, value: Attribute) -> None:
        """Add what is known of it."""

    def end(self, error: str = "") -> None:
        """End it; ``error`` names what went wrong. Ending it again changes nothing."""
