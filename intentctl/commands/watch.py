"""``intentctl watch``: what changes."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Annotated

import typer

from intentctl.connection import connecting
from intentctl.managing import FRONTEND, Frontend, ending_by_code, told
from intentctl.output import AsJson
from serving.domain.management import ModelChange
from serving.wire.channels import ChannelOptions
from serving.wire.management_client import ManagementClient


@connecting
def watch(
    *,
    prefix: Annotated[str, typer.Option(help="Only names that begin with this.", show_default=False)] = "",
    initial: Annotated[bool, typer.Option("--initial", help="Begin with all that is there.")] = False,
    frontend: Frontend = FRONTEND,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """Show models that come, change and go, and releases, a line each, until Ctrl-C. With --json a JSON text a line."""
    with (
        ending_by_code(frontend, connection),
        ManagementClient(frontend, options=connection) as client,
        contextlib.suppress(KeyboardInterrupt),
    ):
        for change in client.watch(prefix=prefix, initial=initial):
            _show(change, as_json=as_json)


def _show(change: ModelChange, *, as_json: bool) -> None:
    if as_json:
        line = json.dumps(change.as_dict(), ensure_ascii=False)
    else:
        what = change.model_id if change.release is None else told(change.release)
        line = f"{change.kind}\t{what}" if what else change.kind
    sys.stdout.write(line + "\n")
    # Whoever reads this through a pipe wants each line when it comes.
    sys.stdout.flush()
