"""Normalization of what people type: one spelling for characters that mean the same and look alike.

Phones, Macs and word processors write curly quotes and apostrophes, East Asian keyboards full-width letters, and web
pages invisible characters. A vocabulary has the plain spelling only.
"""

from __future__ import annotations

import re
from typing import Final
from unicodedata import normalize

MAX_GROWTH: Final = 18
"""Maximum number of characters that one character becomes."""

_APOSTROPHES: Final = (
    "\u2018\u2019\u201a\u201b\u2039\u203a\uff07"  # Unicode's single quotation marks
    "\u00b4\u02b9\u02bb\u02bc\u02bd\u0374\u055a\u05f3\u1ffd\u2032\u2035\ua78b\ua78c"
)
"""Characters that people type instead of an apostrophe: quotation marks, accents without a letter, and primes."""

_QUOTES: Final = (
    '"\u00ab\u00bb\u201c\u201d\u201e\u201f\u2e42\u300c\u300d\u300e\u300f\u301d\u301e\u301f'
    "\ufe41\ufe42\ufe43\ufe44\uff02\uff62\uff63"  # Unicode's other quotation marks
    "\u05f4\u2033\u2034\u2036\u2037\u2057"
)
"""Characters that people type for a double quote, which the tokenizer drops."""

# Default_Ignorable_Code_Point of Unicode 14 (DerivedCoreProperties.txt).
_INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0"
)
"""Invisible characters of the Basic Multilingual Plane, as ranges: soft hyphen, zero-width space, byte order mark."""
_INVISIBLE_BEYOND: Final = "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
"""Invisible characters of the other planes, as ranges."""

_FOLDED: Final = {**dict.fromkeys(_APOSTROPHES, "'"), "\u0149": "'n"}
_FOLDABLE: Final = re.compile(f"[{_QUOTES}{_INVISIBLE}{''.join(_FOLDED)}]")
# A class with characters of all planes is ten times as slow.
_FOLDABLE_BEYOND: Final = re.compile(f"[{_INVISIBLE_BEYOND}]")
_LAST_OF_FIRST_PLANE: Final = "\uffff"


def normalized(text: str) -> str:
    """Return ``text`` with plain apostrophes, without quotes and invisible characters, in Unicode's form NFKC.

    ASCII is returned as it is. Other texts are converted as by NFKC_Casefold (The Unicode Standard, section 3.13), but
    with lower case in place of case folding; in addition, what people type instead of an apostrophe becomes ``'``, and
    double quotes are dropped. The function is idempotent.
    """
    if text.isascii():
        return text
    # Fold first: NFKC turns an acute accent that was typed instead of an apostrophe into a space and an accent.
    text = _FOLDABLE.sub(_folded, text)
    if text.isascii():
        return text
    if max(text) > _LAST_OF_FIRST_PLANE:
        text = _FOLDABLE_BEYOND.sub("", text)
    # Compose again in lower case: some letters have a composed form only in lower case.
    return normalize("NFKC", normalize("NFKC", text).lower())


def _folded(match: re.Match[str]) -> str:
    return _FOLDED.get(match[0], "")
