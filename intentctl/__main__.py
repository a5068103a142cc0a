"""``intentctl``: the composition root of the command line."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from intent_serving_client.version import VERSION
from intentctl.command import EXIT_CODES, IntentCommand, IntentGroup, formerly
from intentctl.commands.access import access
from intentctl.commands.capacity import capacity
from intentctl.commands.compare import compare
from intentctl.commands.doctor import doctor
from intentctl.commands.evaluate import evaluate
from intentctl.commands.explain import explain
from intentctl.commands.export import export
from intentctl.commands.import_archive import import_archive
from intentctl.commands.models import models
from intentctl.commands.predict import predict
from intentctl.commands.releases.delete import delete
from intentctl.commands.releases.history import history
from intentctl.commands.releases.promote import promote
from intentctl.commands.releases.publish import publish
from intentctl.commands.releases.release import release
from intentctl.commands.releases.rollback import rollback
from intentctl.commands.releases.watch import watch
from intentctl.commands.releases.withdraw import withdraw
from intentctl.commands.train import train
from intentctl.commands.up import up
from intentctl.output import print_line, print_on_every_terminal, print_warning
from serving.runtime.variables import SERVICES, unknown_variables


def _print_version(requested: bool) -> None:
    if requested:
        print_line(f"intentctl {VERSION}")
        raise typer.Exit


app = typer.Typer(
    name="intentctl",
    cls=IntentGroup,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (up, models, evaluate, compare, doctor, publish, export, capacity):
    app.command(cls=IntentCommand)(command)
for command in (predict, explain):
    app.command(cls=IntentCommand, context_settings=formerly({"address": "frontend"}))(command)
app.command(cls=IntentCommand, context_settings=formerly({"force": "replace"}))(train)
for command in (release, promote, rollback, withdraw, history, watch, delete):
    app.command(cls=IntentCommand, rich_help_panel="Releases and served models")(command)
app.command("import", cls=IntentCommand)(import_archive)
app.add_typer(access)


@app.callback()
def intentctl(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Serve intent classifiers for many tenants: start the services, send queries, list and train models."""
    del version


def main() -> None:
    """Run the command line."""
    print_on_every_terminal()
    for name, meant in unknown_variables(os.environ, (), SERVICES):
        print_warning(f"the variable {name} has no effect" + (f"; {meant} was probably meant" if meant else ""))
    app()


if __name__ == "__main__":
    main()
