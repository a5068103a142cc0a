"""``intentctl history``: show what is live, the results of trials, and past changes."""

from __future__ import annotations

from typing import Annotated

import typer

from intent_serving_client.channels import ChannelOptions
from intent_serving_client.releases import MAX_HISTORY
from intentctl.connection import connecting
from intentctl.managing import FRONTEND, Frontend, Name, ReadVolume, managing, print_state
from intentctl.output import AsJson


@connecting
def history(
    name: Name,
    *,
    limit: Annotated[
        int, typer.Option(min=0, help="Maximum number of changes to show, the latest first.")
    ] = MAX_HISTORY,
    frontend: Frontend = FRONTEND,
    model_dir: ReadVolume = None,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """Show the release of a name: what is live, the results of versions on trial, and its changes."""
    with managing(frontend, connection, model_dir) as manager:
        state = manager.release_of(name, history=limit)
    print_state(state, as_json=as_json)
