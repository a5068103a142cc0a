"""Commands whose modules are imported when they are used, so that each command imports only what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from intentctl.command import IntentCommand, formerly


class DeferredCommand(TyperCommand):
    """A command of which only the lines in the help of ``intentctl`` are known until it is used.

    Args:
        name: name of the command.
        place: module and name of its function, or of its group of commands: ``module:name``.
        summary: first paragraph of the command's help.
        panel: panel of the help that lists the command; ``None``: that of all commands.
        former: former names of options, each with the current one.
    """

    def __init__(
        self, name: str, place: str, summary: str, *, panel: str | None = None, former: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(name, help=summary, rich_help_panel=panel)
        self._place = place
        self._former = former or {}

    def loaded(self) -> Any:
        """Return the command itself."""
        module, _, name = self._place.partition(":")
        found = getattr(import_module(module), name)
        if isinstance(found, typer.Typer):
            return get_command(found)
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
        app.command(self.name, cls=IntentCommand, context_settings=formerly(self._former))(found)
        return get_command(app)

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context in which the command itself runs, prints its help, or completes a word for a shell."""
        return self.loaded().make_context(info_name, args, parent=parent, **extra)
