"""Runs of short strings in a pickle, found all at once instead of one by one.

A run is nearly all of a vocabulary: strings one after the other, each with or without its memo entry. What looks like a
beginning may also stand inside of a string; but where the first one of a run begins is known, and each of the others
begins where the one before it ends. So a run is what fits together without a gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

_Numbers: TypeAlias = npt.NDArray[np.signedinteger[Any]]

_BINUNICODE: Final = ord("X")
_HEADER: Final = 5
"""Bytes before the text: the opcode and the length, of which the upper three bytes are zero."""
_BINPUT: Final = ord("q")
_LONG_BINPUT: Final = ord("r")
_SHORT_MEMO: Final = 2
_LONG_MEMO: Final = 5
# The unpickler reserves memory up to a memo's index: only those below 2^19 are read at one go.
_THIRD_BYTE_BELOW: Final = 8


@dataclass(frozen=True, slots=True)
class TextRun:
    """Strings one after the other."""

    start: int
    end: int
    memos: _Numbers
    """The memo index of each string; -1 where it has none."""


class TextRuns:
    """The runs of one pickle."""

    def __init__(self, data: bytes) -> None:
        raw = np.frombuffer(data, np.uint8)
        size = len(raw)
        starts = np.flatnonzero((raw[:-4] == _BINUNICODE) & (raw[2:-2] == 0) & (raw[3:-1] == 0) & (raw[4:] == 0))
        ends = starts + _HEADER + raw[starts + 1]
        # A memo entry that is cut off is none, and what is cut off itself ends the run before it.
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
        """The strings that no string follows, but the last."""

    def at(self, position: int) -> TextRun | None:
        """Return the run that begins at ``position``, where an opcode begins; ``None`` where there is none."""
        first = int(np.searchsorted(self._starts, position))
        if first == len(self._starts) or self._starts[first] != position:
            return None
        gap = int(np.searchsorted(self._gaps, first))
        last = int(self._gaps[gap]) if gap < len(self._gaps) else len(self._starts) - 1
        return TextRun(position, int(self._behind[last]), self._memos[first : last + 1])
