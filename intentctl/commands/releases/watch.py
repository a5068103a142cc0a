"""``intentctl watch``: show changes of models and releases."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from intent_serving_client.channels import ChannelOptions
from intent_serving_client.management_client import ManagementClient
from intentctl.connection import connecting
from intentctl.managing import FRONTEND, Frontend, ending_by_code, summary_of
from intentctl.output import AsJson, as_json_text
from serving.domain.management import ModelChange
from serving.telemetry.foreign_text import shown


@connecting
def watch(
    *,
    prefix: Annotated[str, typer.Option(help="Only names with this prefix.", show_default=False)] = "",
    initial: Annotated[bool, typer.Option("--initial", help="Begin with everything that exists.")] = False,
    frontend: Frontend = FRONTEND,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """Show added, changed and removed models, and releases, one per line until Ctrl-C. With --json, lines are JSON."""
    with (
        ending_by_code(frontend, connection),
        ManagementClient(frontend, options=connection) as client,
        contextlib.suppress(KeyboardInterrupt),
    ):
        for change in client.watch(prefix=prefix, initial=initial):
            _show(change, as_json=as_json)


def _show(change: ModelChange, *, as_json: bool) -> None:
    if as_json:
        line = as_json_text(change.as_dict())
    else:
        what = change.model_id if change.release is None else summary_of(change.release)
        line = f"{change.kind}\t{shown(what)}" if what else change.kind
    sys.stdout.write(line + "\n")
    # A reader at the other end of a pipe needs each line as it arrives.
    sys.stdout.flush()
