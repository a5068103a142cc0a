"""Output of commands: coloured tables for a person at a terminal, JSON for scripts, errors in plain words."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

EXIT_FAILED: Final = 1
"""Exit code of a command that could not do what was requested."""
EXIT_USAGE: Final = 2
"""Exit code of a command that was called incorrectly."""
EXIT_UNAVAILABLE: Final = 3
"""Exit code of a command whose service does not answer."""
EXIT_CONFLICT: Final = 4
"""Exit code of a command whose change conflicts with another caller's."""

_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})

console = Console()
errors = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    name: str
    right: bool = False
    style: str = ""


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a coloured table on a terminal; elsewhere, lines with untruncated values separated by tabs."""
    if not console.is_terminal:
        for row in ([column.name for column in columns], *rows):
            sys.stdout.write("\t".join(value.translate(_ESCAPES) for value in row) + "\n")
        return
    table = Table()
    for column in columns:
        table.add_column(column.name, justify="right" if column.right else "left", style=column.style)
    for row in rows:
        table.add_row(*(escape(value) for value in row))
    console.print(table)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON that other programs can read."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def print_error(message: str) -> None:
    """Print an error to standard error and continue."""
    errors.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Print ``message`` to standard error and exit with ``code``."""
    print_error(message)
    raise typer.Exit(code)
