"""``intentctl publish``: put a model on the shared volume so that no reader sees a partial one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intentctl.output import EXIT_USAGE, AsJson, fail, print_json, print_line
from serving.domain.errors import InvalidModelId, ServingError
from serving.domain.manifest import Manifest
from serving.domain.model_id import parse_model_id
from serving.volume.model_store import MANIFEST_FILE, ModelStore
from serving.volume.pipelines import check_pipeline
from serving.volume.publishing import publish as publish_model


def publish(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="Folder with the model's files; a pipeline has its manifest alone.",
            show_default=False,
        ),
    ],
    model_id: Annotated[
        str, typer.Argument(help="Id to publish the model under, or name@version.", show_default=False)
    ],
    *,
    model_dir: Annotated[
        Path, typer.Option(envvar="MODEL_DIR", exists=True, file_okay=False, help="Folder with one folder per model.")
    ] = Path("models"),
    replace: Annotated[bool, typer.Option("--replace", help="Replace the existing model of this id.")] = False,
    as_json: AsJson = False,
) -> None:
    """Publish a model folder: loaded as a check, flushed to disk, renamed into place, with SHA-256 sums."""
    try:
        # NumPy is slow to import, and --help does not need it.
        from predictor.model.servable import check_servable  # noqa: PLC0415
    except ModuleNotFoundError:
        fail("a model is loaded before it is published, which needs NumPy; install requirements/inference.txt")
    try:
        checked_id = parse_model_id(model_id)

        def check(staged: Path) -> None:
            check_servable(staged)
            check_pipeline(ModelStore(model_dir), checked_id, Manifest.parse((staged / MANIFEST_FILE).read_bytes()))

        manifest = publish_model(folder, model_dir, checked_id, replace=replace, check=check)
    except InvalidModelId as error:
        fail(str(error).replace("runId", "the model id"), EXIT_USAGE)
    except ServingError as error:
        fail(str(error))
    except OSError as error:
        fail(f"the model folder cannot be written: {error.strerror}")
    if as_json:
        sums = {name: {"size": file.size, "sha256": file.sha256} for name, file in manifest.files.items()}
        print_json({"id": model_id, "version": manifest.model_version, "files": sums})
    else:
        print_line(f"published {model_id} (version {manifest.model_version or 'unnamed'})")
