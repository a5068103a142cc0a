"""``intentctl rollback``: make a former stable version stable again."""

from __future__ import annotations

from typing import Annotated

import typer

from intent_serving_client.channels import ChannelOptions
from intentctl.connection import connecting
from intentctl.managing import FRONTEND, Comment, Expected, Frontend, Name, OnVolume, managing, print_change
from intentctl.output import AsJson


@connecting
def rollback(
    name: Name,
    *,
    to: Annotated[
        str, typer.Option(metavar="VERSION", help="Former stable version; the last one if omitted.", show_default=False)
    ] = "",
    expect: Expected = None,
    comment: Comment = "",
    frontend: Frontend = FRONTEND,
    model_dir: OnVolume = None,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """Make the former stable version stable again, and end a canary.

    A version that was rolled back does not count as a former one, so two rollbacks go back two versions.
    """
    with managing(frontend, connection, model_dir) as manager:
        state = manager.rollback(name, to, expected_revision=expect, comment=comment)
    print_change(state, as_json=as_json)
