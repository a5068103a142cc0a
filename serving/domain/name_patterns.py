"""Patterns for the names of models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from serving.domain.model_id import VERSION_MARK

ANY_SUFFIX: Final = "*"
"""End of a pattern, which matches any suffix of a name; alone, it matches every name."""


class NamePatterns:
    """Names of models, each of which may end with ``*``.

    Args:
        patterns: the patterns; none matches nothing.
    """

    __slots__ = ("_beginnings", "_names")

    def __init__(self, patterns: Iterable[str]) -> None:
        # Sorted once, because every call matches them.
        names = tuple(patterns)
        self._names = frozenset(name for name in names if not name.endswith(ANY_SUFFIX))
        self._beginnings = tuple(name[:-1] for name in names if name.endswith(ANY_SUFFIX))

    def match(self, model_id: str) -> bool:
        """Return whether a pattern matches the model's name; versions and labels do not count."""
        name, _, _ = model_id.partition(VERSION_MARK)
        return name in self._names or name.startswith(self._beginnings)
