"""Common parts of all commands of ``intentctl``: their help, and options that had other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

EXIT_CODES: Final = (
    "Exit codes: 0 done, 1 failed or refused, 2 wrong usage, 3 no answer, or none in time, 4 changed by someone else."
)


class IntentCommand(TyperCommand):
    """A command whose help lists the exit codes, and shows no type for options without a value."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.epilog = self.epilog or EXIT_CODES

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters."""
        return _without_types_of_flags(super().get_params(ctx))


class IntentGroup(TyperGroup):
    """A group of commands whose help shows no type for options without a value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters."""
        return _without_types_of_flags(super().get_params(ctx))


def formerly(names: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a command that also accepts former names of options: ``{"former": "current"}``."""
    return {"token_normalize_func": lambda name: names.get(name, name)}


def _without_types_of_flags(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    return parameters
