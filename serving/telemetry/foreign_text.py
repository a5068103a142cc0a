"""Text that others wrote, such as labels of a tenant's manifest, in a form that cannot control a terminal."""

from __future__ import annotations

from typing import Final

# Scripts and emoji are joined with these, and terminals do not obey them.
_JOINERS: Final = "\u200c\u200d"


def shown(text: str) -> str:
    """Return ``text`` with its unprintable characters escaped: control sequences, line breaks, changes of direction."""
    if text.isprintable():
        return text
    return "".join(character if _is_harmless(character) else _escaped(character) for character in text)


def shown_lines(text: str) -> str:
    """Return ``text`` with its unprintable characters escaped, except for line breaks."""
    return "\n".join(map(shown, text.split("\n")))


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _JOINERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
