"""``intentctl export``: export a model for another engine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from intentctl.output import EXIT_USAGE, AsJson, Column, fail, print_json, print_table
from serving.domain.errors import InvalidModelId, ServingError
from serving.domain.model_id import parse_model_id
from serving.volume.model_store import folders_of


def export(
    model_id: Annotated[str, typer.Argument(help="Id of the model to export.", show_default=False)],
    *,
    torchserve: Annotated[
        bool,
        typer.Option(
            "--torchserve", help="Write an archive for TorchServe, model-ID.mar. No other engine is supported yet."
        ),
    ] = False,
    model_dir: Annotated[
        Path, typer.Option(envvar="MODEL_DIR", exists=True, file_okay=False, help="Folder with one folder per model.")
    ] = Path("models"),
    model_store: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="Folder of the archive: TorchServe's model store.")
    ] = Path(),
    publish_as: Annotated[
        str | None,
        typer.Option(
            help="Also publish the model under this id for TorchServe, so that the frontend sends its queries there;"
            " the archive is for this id.",
            show_default=False,
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the existing archive, and the existing model, of this id.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a model as an archive that TorchServe serves, with a handler that needs no torchtext."""
    # NumPy is slow to import, and --help does not need it.
    from intentctl.torchserve import exporting  # noqa: PLC0415

    if not torchserve:
        fail("name the engine: --torchserve", EXIT_USAGE)
    try:
        source_id = parse_model_id(model_id)
        target_id = source_id if publish_as is None else parse_model_id(publish_as)
        path = exporting.archive_path(model_store, target_id)
        if not replace:
            exporting.check_free(path, None if publish_as is None else model_dir.joinpath(*folders_of(target_id)))
        source = exporting.read_source(model_dir, source_id)
        archive = exporting.archive_of(source, target_id)
        exporting.put_in_place(path, archive)
        if publish_as is not None:
            exporting.publish_source(source, model_dir, target_id, replace=replace)
    except InvalidModelId as error:
        fail(str(error).replace("runId", "the model id"), EXIT_USAGE)
    except ServingError as error:
        fail(str(error))
    except OSError as error:
        fail(f"the archive, or the model folder, cannot be written: {error.strerror}")
    summary = {
        "id": target_id,
        "file": str(path),
        "version": source.model.version,
        "labels": len(source.model.labels),
        "tokens": len(source.vocabulary),
        "tokenizer": str(source.model.tokenizer),
        "bytes": len(archive),
        "sha256": hashlib.sha256(archive).hexdigest(),
        "published": publish_as is not None,
    }
    if as_json:
        print_json(summary)
    else:
        rows = [(name, str(value)) for name, value in summary.items()]
        print_table([Column("archive"), Column("", right=True, whole=True)], rows)
