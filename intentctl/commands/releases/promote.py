"""``intentctl promote``: make the canary stable."""

from __future__ import annotations

from intent_serving_client.channels import ChannelOptions
from intentctl.connection import connecting
from intentctl.managing import FRONTEND, Comment, Expected, Frontend, Name, OnVolume, managing, print_change
from intentctl.output import AsJson


@connecting
def promote(
    name: Name,
    *,
    expect: Expected = None,
    comment: Comment = "",
    frontend: Frontend = FRONTEND,
    model_dir: OnVolume = None,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """Make the canary the stable version."""
    with managing(frontend, connection, model_dir) as manager:
        state = manager.promote(name, expected_revision=expect, comment=comment)
    print_change(state, as_json=as_json)
