"""Shares as options of commands."""

from __future__ import annotations

from typing import Annotated

import typer


def share(text: str) -> float:
    """Return ``text`` as a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a number from 0 to 1") from error
    # The comparison is written so that NaN fails it too.
    if not 0.0 <= value <= 1.0:
        raise typer.BadParameter(f"{text!r} is not a number from 0 to 1")
    return value


Threshold = Annotated[
    float | None,
    typer.Option(
        parser=share,
        metavar="SHARE",
        help="Minimum score of an answer, instead of the model's own.",
        show_default=False,
    ),
]
