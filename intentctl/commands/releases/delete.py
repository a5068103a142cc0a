"""``intentctl delete``: delete a model or a version from the volume."""

from __future__ import annotations

from typing import Annotated

import typer

from intent_serving_client.channels import ChannelOptions
from intentctl.connection import connecting
from intentctl.managing import FRONTEND, Frontend, OnVolume, managing
from intentctl.output import print_line, print_warning
from serving.domain.model_id import ModelId
from serving.domain.pipelines.pipeline import shown
from serving.volume.model_store import ModelStore
from serving.volume.pipelines import pipelines_that_ask


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
    """Delete a model or a version from the volume. Whatever is live is protected.

    With --model-dir, the pipelines that ask it are named.
    """
    with managing(frontend, connection, model_dir) as manager:
        manager.delete(model_id, force=force)
        asking = [] if model_dir is None else list(pipelines_that_ask(ModelStore(model_dir), ModelId(model_id)))
    print_line(f"deleted {model_id}")
    for pipeline, steps in asking:
        print_warning(f"the pipeline {pipeline} asks it, in {', '.join(f'step {shown(step)}' for step in steps)}")
