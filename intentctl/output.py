"""Output of commands: coloured tables for a person at a terminal, JSON for scripts, errors in plain words.

Everything that a command prints goes through this module. Text that others wrote, such as a tenant's labels, cannot
control the terminal, and can be printed on every terminal, whatever its encoding.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TextIO

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from serving.telemetry.foreign_text import shown, shown_lines

EXIT_FAILED: Final = 1
"""Exit code of a command that could not do what was requested."""
EXIT_USAGE: Final = 2
"""Exit code of a command that was called incorrectly."""
EXIT_UNAVAILABLE: Final = 3
"""Exit code of a command whose service does not answer."""
EXIT_CONFLICT: Final = 4
"""Exit code of a command whose change conflicts with another caller's."""

_BEYOND_ASCII: Final = re.compile(r"[^\x00-\x7e]")
_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

# Width up to which words are not broken, and width of the padding and the border of a column.
_LEAST_CELLS: Final = 12
_AROUND_CELLS: Final = 3

_NAME_AND_VALUE: Final = 2
_WIDEST_NAME: Final = 36
"""Width of the names of a list beyond which values are not aligned."""


class Screen(Console):
    """A console that escapes control sequences in whatever it prints."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of ``renderable``, with unprintable characters escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown_lines(segment.text), segment.style)


console = Screen()
errors = Screen(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    right: bool = False
    style: str = ""
    whole: bool = False
    """Whether values stay on one line, however narrow the terminal: readers copy them."""
    words: bool = False
    """Whether values are lists, which are broken only between their members."""


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a coloured table on a terminal; elsewhere, lines with untruncated values separated by tabs.

    Where the terminal is too narrow for the columns that are kept whole, lists are printed instead of a table.
    """
    if not console.is_terminal:
        with _writing():
            for row in ([column.name for column in columns], *rows):
                sys.stdout.write("\t".join(shown(value.translate(_ESCAPES)) for value in row) + "\n")
        return
    cells = [[shown(value) for value in row] for row in rows]
    least = [_least_width(column, [row[number] for row in cells]) for number, column in enumerate(columns)]
    narrowest = 1 + sum(width + _AROUND_CELLS for width in least)
    if narrowest > console.width:
        _print_lists(columns, cells)
        return
    table = Table()
    for column, width in zip(columns, least, strict=True):
        table.add_column(
            column.name,
            min_width=width,
            justify="right" if column.right else "left",
            style=column.style,
            no_wrap=column.whole,
            overflow="fold",
        )
    for row in cells:
        table.add_row(*map(escape, row))
    console.print(table, crop=False)


def _least_width(column: Column, values: Sequence[str]) -> int:
    """Return the width, in cells of the terminal, that a column needs to show its heading and its values."""
    texts = (column.name, *values)
    if column.whole:
        return max(map(cell_len, texts))
    longest_word = max(cell_len(word) for text in texts for word in (text.split() or [""]))
    return longest_word if column.words else min(longest_word, _LEAST_CELLS)


def _print_lists(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print each row as a list of its values, with an empty line between two rows; rows of two values as one list."""
    if len(columns) == _NAME_AND_VALUE:
        _print_list([(name, value, columns[1].style) for name, value in rows])
        return
    for number, row in enumerate(rows):
        if number:
            console.print()
        _print_list([(column.name, value, column.style) for column, value in zip(columns, row, strict=True) if value])


def _print_list(items: Sequence[tuple[str, str, str]]) -> None:
    """Print names, values, and the styles of the values, one of each in a line; the terminal breaks long lines."""
    widest = min(max((cell_len(name) for name, _, _ in items), default=0), _WIDEST_NAME)
    for name, value, style in items:
        line = Text.assemble((name, "bold"), " " * max(widest - cell_len(name), 0), "  ", (value, style))
        console.print(line, highlight=False, soft_wrap=True)


def print_line(text: str) -> None:
    """Print ``text`` as it is on a line of its own."""
    with _writing():
        console.print(shown(text), markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON that other programs can read."""
    with _writing():
        sys.stdout.write(as_json_text(value, indent=2) + "\n")


def as_json_text(value: Any, *, indent: int | None = None) -> str:
    """Return ``value`` as JSON: in ASCII if standard output cannot print more, and without control characters."""
    text = json.dumps(value, indent=indent, ensure_ascii=not _prints_unicode())
    # In JSON, characters beyond ASCII are only found within strings, where escapes mean the same.
    return _BEYOND_ASCII.sub(lambda found: found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1], text)


def print_error(message: str) -> None:
    """Print an error to standard error and continue."""
    errors.print(f"[bold red]error:[/] {escape(shown_lines(message))}", highlight=False, soft_wrap=True)


def print_warning(message: str) -> None:
    """Print a warning to standard error and continue."""
    errors.print(f"[bold yellow]warning:[/] {escape(shown_lines(message))}", highlight=False, soft_wrap=True)


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Print ``message`` to standard error and exit with ``code``."""
    print_error(message)
    raise typer.Exit(code)


def print_on_every_terminal() -> None:
    """Let standard output and standard error escape what their encodings lack, and discard output that is closed."""
    # In a process that was started with closed streams, these are None, and the next file would get their descriptors.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Flush standard output, and end the command in plain words if that fails, as it does on a full disk."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has enough. Typer ends the command silently.
        raise
    except OSError as error:
        # The bytes in the buffer would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        fail(f"the output cannot be written: {error.strerror}")


def _prints_unicode() -> bool:
    return (sys.stdout.encoding or "ascii").lower().replace("_", "-").startswith("utf")
