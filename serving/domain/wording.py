"""Wording of messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number of things: ``1 label``, ``2 labels``. The plural of ``noun`` must end with an added s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
