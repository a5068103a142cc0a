"""What commands print: tables with colour for a person at a terminal, JSON for scripts; errors in plain words."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console

EXIT_FAILED: Final = 1
"""The command could not do what was asked."""
EXIT_USAGE: Final = 2
"""The command was called wrongly."""
EXIT_UNAVAILABLE: Final = 3
"""The service does not answer."""

console = Console()
errors = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_json(value: Any) -> None:
    """Print ``value`` as JSON that other programs can read."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    """Print ``message`` to standard error and end with ``code``."""
    errors.print(f"[bold red]error:[/] {message}", highlight=False, soft_wrap=True)
    raise typer.Exit(code)
