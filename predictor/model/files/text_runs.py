"""Runs of short strings in a pickle, found all at once instead of one by one.

A run makes up nearly all of a vocabulary: consecutive strings, each with or without a memo entry. Bytes that look like
the beginning of a string may also occur inside a string. But the beginning of the first string of a run is known, and
every other string begins where the previous one ends. So a run consists of strings that follow each other without a
gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

_Numbers: TypeAlias = npt.NDArray[np.signedinteger[Any]]

_BINUNICODE: Final = ord("X")
_HEADER: Final = 5
"""Bytes before the text: the opcode, and the length, whose upper three bytes are zero."""
_BINPUT: Final = ord("q")
_LONG_BINPUT: Final = ord("r")
_SHORT_MEMO: Final = 2
_LONG_MEMO: Final = 5
# The unpickler allocates memory up to the index of a memo entry, so only indices below 2^19 are read in one pass.
_THIRD_BYTE_BELOW: Final = 8


@dataclass(frozen=True, slots=True)
class TextRun:
    """Consecutive strings."""

    start: int
    end: int
    memos: _Numbers
    """Memo index of each string; -1 if the string has none."""


class TextRuns:
    """Runs of one pickle."""

    def __init__(self, data: bytes) -> None:
        raw = np.frombuffer(data, np.uint8)
        size = len(raw)
        starts = np.flatnonzero((raw[:-4] == _BINUNICODE) & (raw[2:-2] == 0) & (raw[3:-1] == 0) & (raw[4:] == 0))
        ends = starts + _HEADER + raw[starts + 1]
        # A truncated memo entry does not count, and a truncated string ends the run before it.
        starts, ends = starts[ends + _LONG_MEMO <= size], ends[ends + _LONG_MEMO <= size]
        short = raw[ends] == _BINPUT
        long = (raw[ends] == _LONG_BINPUT) & (raw[ends + 3] < _THIRD_BYTE_BELOW) & (raw[ends + 4] == 0)
        low = raw[ends + 1].astype(np.intp)
        self._starts = starts
        self._behind = ends + _SHORT_MEMO * short + _LONG_MEMO * long
        self._memos = np.where(
            short,
            low,
            np.where(long, low | raw[ends + 2].astype(np.intp) << 8 | raw[ends + 3].astype(np.intp) << 16, -1),
        )
        self._gaps = np.flatnonzero(self._behind[:-1] != starts[1:])
        """Positions of the strings that no string follows directly, except the last one."""

    def at(self, position: int) -> TextRun | None:
        """Return the run that begins at ``position``, where an opcode begins; ``None`` if no run begins there."""
        first = int(np.searchsorted(self._starts, position))
        if first == len(self._starts) or self._starts[first] != position:
            return None
        gap = int(np.searchsorted(self._gaps, first))
        last = int(self._gaps[gap]) if gap < len(self._gaps) else len(self._starts) - 1
        return TextRun(position, int(self._behind[last]), self._memos[first : last + 1])
