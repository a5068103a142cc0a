"""``intentctl delete``: delete a model or a version from the volume."""

from __future__ import annotations

from typing import Annotated

import typer

from intent_serving_client.channels import ChannelOptions
from intentctl.connection import connecting
from intentctl.managing import FRONTEND, Frontend, OnVolume, managing
from intentctl.output import print_line


@connecting
def delete(
    model_id: Annotated[str, typer.Argument(help="Id of the model, or name@version.", show_default=False)],
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Delete even a whole model, or a version that is live, pinned, or needed for a rollback."
        ),
    ] = False,
    frontend: Frontend = FRONTEND,
    model_dir: OnVolume = None,
    connection: ChannelOptions,
) -> None:
    """Delete a model or a version from the volume. Whatever is live is protected."""
    with managing(frontend, connection, model_dir) as manager:
        manager.delete(model_id, force=force)
    print_line(f"deleted {model_id}")
