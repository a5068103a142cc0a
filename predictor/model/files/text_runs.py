"""Runs of short strings in a pickle, found many at a time instead of one by one.

A run makes up nearly all of a vocabulary: consecutive strings, each with or without a memo entry. Bytes that look like
the beginning of a string may also occur inside a string. But the beginning of the first string of a run is known, and
every other string begins where the previous one ends. So a run consists of strings that follow each other without a
gap.
"""

from __future__ import annotations

import pickle
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
_LONGEST: Final = _HEADER + 255 + _LONG_MEMO
"""Bytes of the longest string and its memo entry."""

WINDOW_BYTES: Final = 1 << 18
"""Bytes that are searched at once, so that the search takes little memory however large the file is."""
WINDOW_MEMORY: Final = 32 * WINDOW_BYTES
"""Upper bound on the memory of a search, in bytes: a few numbers for each string of at least five bytes."""

_LIST_BEGINS: Final = b"\x80\x02("
_LIST_ENDS: Final = b"l."


@dataclass(frozen=True, slots=True)
class TextRun:
    """Consecutive strings."""

    start: int
    end: int
    memos: _Numbers
    """Memo index of each string; -1 if the string has none."""
    opcodes: bytes
    """The opcodes of the strings, without those of the memo."""

    def __len__(self) -> int:
        return len(self.memos)

    def texts(self) -> list[str]:
        """Return the strings.

        Raises:
            UnicodeDecodeError: a string is not UTF-8.
        """
        # The opcodes are those of text alone, so Python's unpickler, which is seven times as fast, may read them.
        texts: list[str] = pickle.loads(b"".join((_LIST_BEGINS, self.opcodes, _LIST_ENDS)))  # noqa: S301
        return texts


class TextRuns:
    """Runs of one pickle, which ends at or before ``end``."""

    def __init__(self, data: bytes, end: int) -> None:
        self._data = data
        self._end = end
        self._window = _Window(data, 0, 0)

    def at(self, position: int, shortest: int) -> TextRun | None:
        """Return the run that begins at ``position``, where an opcode begins.

        ``None`` if no run of at least ``shortest`` bytes begins there.

        A run ends with its window at the latest; the rest of it is the next run.
        """
        window = self._window
        if not window.start <= position < window.covered:
            end = min(self._end, position + WINDOW_BYTES)
            window = self._window = _Window(self._data, position, end)
            # A string that does not end in this window is part of the next one.
            window.covered = end if end == self._end else end - _LONGEST
        return window.run_at(position, shortest)


class _Window:
    """The strings in a part of a pickle. Positions are those in the file."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self.start = start
        self.covered = end
        """Position up to which every string is found."""
        raw = np.frombuffer(data, np.uint8, end - start, start)
        self._raw = raw
        size = len(raw)
        starts = np.flatnonzero((raw[:-4] == _BINUNICODE) & (raw[2:-2] == 0) & (raw[3:-1] == 0) & (raw[4:] == 0))
        ends = starts + _HEADER + raw[starts + 1]
        # A truncated memo entry does not count, and a truncated string ends the run before it.
        starts, ends = starts[ends + _LONG_MEMO <= size], ends[ends + _LONG_MEMO <= size]
        short = raw[ends] == _BINPUT
        long = raw[ends] == _LONG_BINPUT
        self._starts = starts
        self._ends = ends
        self._widths = _SHORT_MEMO * short + _LONG_MEMO * long
        index = np.zeros(len(ends), np.int64)
        for byte in range(_LONG_MEMO - 1):
            index |= raw[ends + 1 + byte].astype(np.int64) << 8 * byte
        self._memos = np.where(short, index & 0xFF, np.where(long, index, -1))
        self._gaps = np.flatnonzero((ends + self._widths)[:-1] != starts[1:])
        """Numbers of the strings that no string follows directly, except the last one."""

    def run_at(self, position: int, shortest: int) -> TextRun | None:
        place = position - self.start
        first = int(np.searchsorted(self._starts, place))
        if first == len(self._starts) or self._starts[first] != place:
            return None
        gap = int(np.searchsorted(self._gaps, first))
        last = int(self._gaps[gap]) if gap < len(self._gaps) else len(self._starts) - 1
        end = int(self._ends[last] + self._widths[last])
        if end - place < shortest:
            return None
        chosen = slice(first, last + 1)
        ends, widths = self._ends[chosen], self._widths[chosen]
        kept = np.ones(end - place, np.bool_)
        for byte in range(_LONG_MEMO):
            kept[ends[widths > byte] + byte - place] = False
        return TextRun(position, self.start + end, self._memos[chosen], self._raw[place:end][kept].tobytes())
