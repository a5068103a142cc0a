"""``intentctl models``: what is on the shared volume."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from intentctl.output import AsJson, Column, fail, print_json, print_table
from serving.errors import ServingError
from serving.model_id import ModelId
from serving.model_store import ModelStore

_COLUMNS: Final = ("id", "version", "algorithm", "labels", "tokenizer", "bytes", "state")


def models(
    *,
    model_dir: Annotated[
        Path, typer.Option(envvar="MODEL_DIR", exists=True, file_okay=False, help="Folder with one folder a model.")
    ] = Path("models"),
    as_json: AsJson = False,
) -> None:
    """List the models of a model folder."""
    store = ModelStore(model_dir)
    try:
        rows = [_row(store, model_id) for model_id in store.model_ids()]
    except ServingError as error:
        fail(str(error))
    if as_json:
        print_json(rows)
        return
    columns = [Column(name, right=name in {"labels", "bytes"}) for name in _COLUMNS]
    print_table(columns, [[str(row[name]) for name in _COLUMNS] for row in rows])


def _row(store: ModelStore, model_id: ModelId) -> dict[str, Any]:
    row: dict[str, Any] = {"id": model_id, "version": "", "algorithm": "", "labels": 0, "tokenizer": "", "bytes": 0}
    try:
        fingerprint = store.fingerprint(model_id)
        row["bytes"] = sum(file.size for file in fingerprint.files if file)
        manifest = store.read_manifest(model_id)
    except ServingError as error:
        return row | {"state": str(error)}
    state = f"no {', no '.join(fingerprint.missing)}" if fingerprint.missing else "complete"
    return row | {
        "version": manifest.model_version,
        "algorithm": manifest.algorithm,
        "labels": len(manifest.classes),
        "tokenizer": manifest.tokenizer or "by vocabulary",
        "state": state,
    }
