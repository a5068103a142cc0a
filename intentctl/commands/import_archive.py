"""``intentctl import``: import a model from a TorchServe archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intentctl.output import EXIT_USAGE, AsJson, Column, fail, print_json, print_table
from serving.domain.errors import InvalidModelId, ServingError
from serving.domain.model_id import MAX_MODEL_ID_BYTES, parse_model_id
from serving.volume.model_store import folders_of


def import_archive(
    archive: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, help="Archive of TorchServe, FILE.mar or FILE.tar.gz.", show_default=False
        ),
    ],
    *,
    model_id: Annotated[
        str | None,
        typer.Option(
            help="Id to publish the model under; if omitted, the one in model-ID.mar or model-ID.tar.gz, or else"
            " the name in the archive.",
            show_default=False,
        ),
    ] = None,
    model_dir: Annotated[
        Path, typer.Option(envvar="MODEL_DIR", exists=True, file_okay=False, help="Folder with one folder per model.")
    ] = Path("models"),
    replace: Annotated[bool, typer.Option("--replace", help="Replace the existing model of this id.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish the model of a TorchServe archive for the predictor. The archive is data: nothing in it is executed."""
    # NumPy is slow to import, and --help does not need it.
    from intentctl.torchserve import importing  # noqa: PLC0415

    try:
        opened = importing.read_archive(archive)
        checked_id = importing.id_of(archive, opened) if model_id is None else parse_model_id(model_id)
        model = importing.import_model(opened, model_dir, checked_id, replace=replace)
    except InvalidModelId:
        fail(
            f"{'the archive has no valid model id' if model_id is None else '--model-id is not valid'}: 1 to"
            f" {MAX_MODEL_ID_BYTES} ASCII letters, digits, '.', '_' or '-', not starting with '.';"
            " give one with --model-id",
            EXIT_USAGE,
        )
    except ServingError as error:
        fail(str(error))
    except OSError as error:
        fail(f"the archive cannot be read, or the model folder cannot be written: {error.strerror}")
    summary = {
        "id": checked_id,
        "folder": str(model_dir.joinpath(*folders_of(checked_id))),
        "version": model.version,
        "labels": len(model.labels),
        "tokenizer": str(model.tokenizer),
    }
    if as_json:
        print_json(summary)
    else:
        rows = [(name, str(value)) for name, value in summary.items()]
        print_table([Column("model"), Column("", right=True, whole=True)], rows)
