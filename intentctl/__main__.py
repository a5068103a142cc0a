"""``intentctl``: the composition root of the command line."""

from __future__ import annotations

import os
from typing import Annotated, Any, Final

import typer

from intent_serving_client.version import VERSION
from intentctl.command import EXIT_CODES, IntentGroup
from intentctl.deferred import DeferredCommand
from intentctl.output import print_line, print_on_every_terminal, print_warning
from serving.runtime.variables import SERVICES, unknown_variables


def _print_version(requested: bool) -> None:
    if requested:
        print_line(f"intentctl {VERSION}")
        raise typer.Exit


_RELEASES: Final = "Releases and served models"


def _commands() -> tuple[DeferredCommand, ...]:
    """Return all commands, in the order of the help."""
    return (
        DeferredCommand(
            "up",
            "intentctl.commands.up:up",
            "Start the frontend and the predictor on this machine; Ctrl-C drains and stops them.",
        ),
        DeferredCommand(
            "models",
            "intentctl.commands.models:models",
            "List the models of a model folder, with --frontend those it serves, or with --resident those in memory.",
        ),
        DeferredCommand(
            "evaluate",
            "intentctl.commands.evaluate:evaluate",
            "Measure a model on labelled texts: accuracy, out-of-scope detection, calibration, confusions.",
        ),
        DeferredCommand(
            "compare",
            "intentctl.commands.compare:compare",
            "Compare two models on the same labelled texts: agreement, wins, losses, McNemar's test.",
        ),
        DeferredCommand(
            "doctor",
            "intentctl.commands.doctor:doctor",
            "Look for faults in a model: in its files, tokenizer, labels and weights, and in the queries that it"
            " receives.",
        ),
        DeferredCommand(
            "publish",
            "intentctl.commands.releases.publish:publish",
            "Publish a model folder: loaded as a check, flushed to disk, renamed into place, with SHA-256 sums.",
        ),
        DeferredCommand(
            "pipeline",
            "intentctl.commands.pipelines.pipeline:pipeline",
            "Check pipelines against the models that they ask, and draw them.",
        ),
        DeferredCommand(
            "export",
            "intentctl.commands.export:export",
            "Write a model as an archive that TorchServe serves, with a handler that needs no torchtext.",
        ),
        DeferredCommand(
            "capacity",
            "intentctl.commands.capacity:capacity",
            "Predict the hit rate and the number of predictors needed from popularity, model sizes and memory.",
        ),
        DeferredCommand(
            "predict",
            "intentctl.commands.predict:predict",
            "Classify texts with a model of a running frontend.",
            former={"address": "frontend"},
        ),
        DeferredCommand(
            "explain",
            "intentctl.commands.explain:explain",
            "Show what each word of a text adds to the answer. The figures are exact, because the network is linear.",
            former={"address": "frontend"},
        ),
        DeferredCommand(
            "train",
            "intentctl.commands.train:train",
            "Train an intent classifier on labelled texts, and write its folder.",
            former={"force": "replace"},
        ),
        DeferredCommand(
            "release",
            "intentctl.commands.releases.release:release",
            "Make a version live: for all calls, for a share of them, as a shadow, or under a label.",
            panel=_RELEASES,
        ),
        DeferredCommand(
            "promote",
            "intentctl.commands.releases.promote:promote",
            "Make the canary the stable version.",
            panel=_RELEASES,
        ),
        DeferredCommand(
            "rollback",
            "intentctl.commands.releases.rollback:rollback",
            "Make the former stable version stable again, and end a canary.",
            panel=_RELEASES,
        ),
        DeferredCommand(
            "withdraw",
            "intentctl.commands.releases.withdraw:withdraw",
            "End the canary or the shadow, or remove a label. The stable version stays.",
            panel=_RELEASES,
        ),
        DeferredCommand(
            "history",
            "intentctl.commands.releases.history:history",
            "Show the release of a name: what is live, the results of versions on trial, and its changes.",
            panel=_RELEASES,
        ),
        DeferredCommand(
            "watch",
            "intentctl.commands.releases.watch:watch",
            "Show added, changed and removed models, and releases, one per line until Ctrl-C. With --json, lines are"
            " JSON.",
            panel=_RELEASES,
        ),
        DeferredCommand(
            "delete",
            "intentctl.commands.releases.delete:delete",
            "Delete a model or a version from the volume. Whatever is live is protected.",
            panel=_RELEASES,
        ),
        DeferredCommand(
            "import",
            "intentctl.commands.import_archive:import_archive",
            "Publish the model of a TorchServe archive for the predictor. The archive is data: nothing in it is"
            " executed.",
        ),
        DeferredCommand(
            "access",
            "intentctl.commands.access:access",
            "Make API keys and certificates for trials, and check the access file that names who may call.",
        ),
    )


class _Commands(IntentGroup):
    """All commands."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for command in _commands():
            self.add_command(command)


app = typer.Typer(
    name="intentctl",
    cls=_Commands,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


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
