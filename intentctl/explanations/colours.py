"""Colours of words that speak for a label and against it, which colour-blind people can distinguish too."""

from __future__ import annotations

from typing import Final

Colour = tuple[int, int, int]

FOR: Final[Colour] = (88, 166, 255)
AGAINST: Final[Colour] = (240, 136, 62)

_WHITE: Final = 255
_FAINTEST: Final = 0.04
"""Least strength that is coloured, so that every colour is visible."""


def colour_of(strength: float) -> Colour | None:
    """Return the colour behind dark text for a share from -1 to 1; ``None`` for a negligible one."""
    part = min(abs(strength), 1.0)
    if part < _FAINTEST:
        return None
    full = FOR if strength > 0 else AGAINST
    red, green, blue = (round(_WHITE + (channel - _WHITE) * part) for channel in full)
    return red, green, blue


def hexadecimal(colour: Colour) -> str:
    """Return the colour in the notation of HTML, matplotlib and rich."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
