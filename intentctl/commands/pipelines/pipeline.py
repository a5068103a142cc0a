"""``intentctl pipeline``: check a pipeline against the models of a folder, and draw it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from intentctl.command import EXIT_CODES, IntentCommand, IntentGroup
from intentctl.output import (
    EXIT_FAILED,
    EXIT_USAGE,
    AsJson,
    Column,
    fail,
    print_json,
    print_line,
    print_table,
    print_warning,
)
from intentctl.pipelines.description import as_dict, lines_of
from serving.domain.errors import InvalidManifest, InvalidModelId, ServingError
from serving.domain.manifest import Manifest
from serving.domain.model_id import ModelId, parse_model_id
from serving.domain.pipelines.pipeline import ALGORITHM as PIPELINE
from serving.domain.pipelines.pipeline import Pipeline, Rights
from serving.domain.wording import counted
from serving.volume.inventory import Inventory
from serving.volume.model_store import MANIFEST_FILE, ModelStore
from serving.volume.pipelines import pipeline_faults

_PICTURES: Final = (".png", ".svg")

pipeline = typer.Typer(
    name="pipeline",
    cls=IntentGroup,
    help="Check pipelines against the models that they ask, and draw them.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
)

Target = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE",
        help="Model id of the pipeline, a folder with its manifest, or the manifest.",
        show_default=False,
    ),
]
ModelDir = Annotated[
    Path, typer.Option(envvar="MODEL_DIR", exists=True, file_okay=False, help="Folder with one folder per model.")
]


class _Found(NamedTuple):
    model_id: ModelId
    manifest: Manifest
    pipeline: Pipeline


@pipeline.command(cls=IntentCommand)
def check(
    target: Target,
    *,
    publish_as: Annotated[
        str, typer.Option("--as", metavar="MODEL_ID", help="Id that a folder will be published under.")
    ] = "",
    model_dir: ModelDir = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Check a pipeline: its steps, the models that they ask, and the labels of these. Exits with 1 if it has faults."""
    try:
        found = _found(target, model_dir, publish_as)
        faults = pipeline_faults(ModelStore(model_dir), found.model_id, found.pipeline)
    except InvalidManifest as error:
        if not as_json:
            fail(str(error))
        print_json({"pipeline": publish_as or Path(target).resolve().name, "faults": [str(error)]})
        raise typer.Exit(EXIT_FAILED) from error
    except ServingError as error:
        fail(str(error))
    if as_json:
        print_json({"pipeline": found.model_id, "faults": faults})
    elif faults:
        print_table([Column("fault")], [[fault] for fault in faults])
    else:
        steps, models = len((found.manifest.model_extra or {})["Steps"]), len(found.pipeline.models)
        print_line(f"{found.model_id} has no faults: {counted(steps, 'step')}, {counted(models, 'model')}")
        if found.pipeline.rights is Rights.PIPELINE:
            named = ", ".join(found.pipeline.models)
            print_warning(f'"Rights": "pipeline" gives all of its callers the answers of {named}')
    if faults:
        raise typer.Exit(EXIT_FAILED)


@pipeline.command(cls=IntentCommand)
def draw(
    target: Target,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Picture to write, .png or .svg, instead of text.")
    ] = None,
    model_dir: ModelDir = Path("models"),
    as_json: AsJson = False,
) -> None:
    """Draw a pipeline as text, or as a PNG or SVG."""
    try:
        found = _found(target, model_dir)
    except InvalidManifest as error:
        fail(str(error))
    version = found.manifest.model_version
    title = f"{found.model_id} (version {version})" if version else found.model_id
    if output is not None:
        _write_picture(found.pipeline, title, output)
    elif as_json:
        print_json({"pipeline": found.model_id, "start": found.pipeline.start, "steps": as_dict(found.pipeline)})
    else:
        print_line(title)
        for line in lines_of(found.pipeline):
            print_line(line)


def _write_picture(definition: Pipeline, title: str, output: Path) -> None:
    if output.suffix not in _PICTURES:
        fail(f"--output must end with {' or '.join(_PICTURES)}", EXIT_USAGE)
    try:
        from intentctl.pipelines.plot import draw as draw_picture  # noqa: PLC0415 - loads matplotlib

        draw_picture(definition, title, output)
    except ModuleNotFoundError:
        fail("a picture needs matplotlib; install requirements/command_line.txt and matplotlib, or leave out --output")
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}")
    print_line(f"wrote {output}")


def _found(target: str, model_dir: Path, publish_as: str = "") -> _Found:
    """Return the pipeline in a folder, or of a model id; end the command if there is none.

    Raises:
        InvalidManifest: the definition is wrong.
    """
    folder = Path(target)
    folder = folder.parent if folder.name == MANIFEST_FILE else folder
    try:
        if (folder / MANIFEST_FILE).is_file():
            model_id = parse_model_id(publish_as or folder.resolve().name)
            manifest = Manifest.parse((folder / MANIFEST_FILE).read_bytes())
        elif os.sep in target:
            what = f"no {MANIFEST_FILE}" if folder.is_dir() else "no such folder"
            fail(f"there is {what}: {folder}", EXIT_USAGE)
        else:
            store = ModelStore(model_dir)
            model_id = Inventory(store).answering(parse_model_id(target))
            manifest = store.read_manifest(model_id)
    except InvalidModelId as error:
        fail(str(error).replace("runId", "the model id"), EXIT_USAGE)
    except InvalidManifest:
        raise
    except ServingError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{folder / MANIFEST_FILE} cannot be read: {error.strerror}")
    if manifest.pipeline is None:
        fail(f'{model_id} is not a pipeline, whose Algorithm is "{PIPELINE}": its Algorithm is "{manifest.algorithm}"')
    return _Found(model_id, manifest, manifest.pipeline)
