"""``intentctl withdraw``: end a trial, or remove a label."""

from __future__ import annotations

from typing import Annotated

import typer

from intent_serving_client.channels import ChannelOptions
from intent_serving_client.releases import WithdrawableRole
from intentctl.connection import connecting
from intentctl.managing import FRONTEND, Comment, Expected, Frontend, Name, OnVolume, managing, print_change
from intentctl.output import EXIT_USAGE, AsJson, fail


@connecting
def withdraw(
    name: Name,
    *,
    canary: Annotated[bool, typer.Option("--canary", help="End the canary.")] = False,
    shadow: Annotated[bool, typer.Option("--shadow", help="End the shadow.")] = False,
    label: Annotated[str | None, typer.Option(help="Remove this label.", show_default=False)] = None,
    expect: Expected = None,
    comment: Comment = "",
    frontend: Frontend = FRONTEND,
    model_dir: OnVolume = None,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """End the canary or the shadow, or remove a label. The stable version stays."""
    if canary + shadow + (label is not None) != 1:
        fail("give one of --canary, --shadow and --label", EXIT_USAGE)
    role: WithdrawableRole = "canary" if canary else "shadow" if shadow else "label"
    with managing(frontend, connection, model_dir) as manager:
        state = manager.withdraw(name, role, label=label or "", expected_revision=expect, comment=comment)
    print_change(state, as_json=as_json)
