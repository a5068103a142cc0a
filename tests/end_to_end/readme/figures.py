"""Figures that vary from run to run and from machine to machine: replaced in what is printed and what is expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

_ESCAPE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
_VARYING: Final[Sequence[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]]] = (
    # Moments.
    (re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?Z?"), "MOMENT"),
    (re.compile(r"\b\d:\d\d:\d\d\b"), "DURATION"),
    (re.compile(r"\bseconds=[\d.]+"), "seconds=SECONDS"),
    # Chance.
    (re.compile(r"\brequest_id=[0-9a-f]{32}"), "request_id=ID"),
    # The folder of the clone.
    (re.compile(r"/\S+(?=/\.venv\b)"), "CLONE"),
    # How long training takes, and steps of pipelines.
    (re.compile(r"\(\d+\.\d ms\)"), "(TIME)"),
    (re.compile(r"(│ seconds +│ +)[\d.]+ │"), r"\1SECONDS │"),
    # Scores: kernels of different processors add in different orders. Four digits are the same everywhere.
    (re.compile(r"\d+\.\d{5,}(e-?\d+)?|\d+(\.\d+)?e-\d+"), lambda found: f"{float(found[0]):.3g}"),
    # Figures of a model trained here depend on the kernels a little more.
    (re.compile(r"(│ (temperature|threshold) +│ +)[\d.e-]+ │"), r"\1FIGURE │"),
    (re.compile(r"\b(loss|threshold of) [\d.]+"), r"\1 FIGURE"),
    (re.compile(r" +$", re.MULTILINE), ""),
)

# The frontend, which starts beside the predictor, writes these if it is the first to be ready.
_OF_STARTS: Final = re.compile(r"server is (unavailable|available again)\b")


def comparable(printed: str) -> str:
    """Return a text with everything replaced that may vary, and without colours."""
    text = "\n".join(map(_left_on_screen, printed.replace("\r\n", "\n").split("\n")))
    for pattern, replacement in _VARYING:
        text = pattern.sub(replacement, text)
    # The widths of columns follow from the figures in them.
    text = re.sub(r"(?<=\S) {2,}", "  ", text)
    text = re.sub(r"[━─]{3,}", "━━━", text)
    return _with_logs_in_order(text.strip("\n").split("\n"))


def lines_in(printed: str) -> int:
    """Return the number of complete lines of a text, without those that are there by chance."""
    return sum(line.endswith("\n") and not _OF_STARTS.search(line) for line in printed.splitlines(keepends=True))


def _left_on_screen(line: str) -> str:
    """Return what stays of a line that a program has written over, as a progress bar does."""
    return next((part for part in map(_without_colours, reversed(line.split("\r"))) if part), "")


def _without_colours(text: str) -> str:
    return _ESCAPE.sub("", text)


def _with_logs_in_order(lines: Sequence[str]) -> str:
    """Return the lines with those of logs first: which of two processes writes first, or is ready first, is chance."""
    logs = sorted(line for line in lines if line.startswith("MOMENT") and not _OF_STARTS.search(line))
    return "\n".join([*logs, *(line for line in lines if not line.startswith("MOMENT"))])
