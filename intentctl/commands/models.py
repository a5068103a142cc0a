"""``intentctl models``: list the models on the shared volume, of a frontend, or in a predictor's memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from intent_serving_client.channels import ChannelOptions
from intent_serving_client.management_client import ManagementClient
from intentctl.connection import connecting, fail_unanswered
from intentctl.output import EXIT_UNAVAILABLE, EXIT_USAGE, AsJson, Column, console, fail, print_json, print_table
from serving.domain.errors import DeadlineExceeded, InvalidConnection, ServingError, Unavailable
from serving.domain.management import ModelSummary
from serving.domain.model_id import ModelId
from serving.domain.wording import counted
from serving.volume.model_store import ModelStore
from serving.wire.residency_client import Residency, ask_residency

_ON_DISK: Final = ("id", "version", "algorithm", "labels", "tokenizer", "bytes", "state")
_IN_MEMORY: Final = ("id", "version", "generation", "bytes", "idle_seconds", "leases", "hits", "pinned")
_SERVED: Final = (
    "name",
    "algorithm",
    "version",
    "labels",
    "bytes",
    "versions",
    "stable",
    "canary",
    "shadow",
    "problem",
)
_WHOLE: Final = {"id", "name", "version", "stable", "canary", "shadow"}
_LISTS: Final = {"versions"}
_NUMBERS: Final = {"labels", "bytes", "generation", "idle_seconds", "leases", "hits"}


@connecting
def models(
    *,
    model_dir: Annotated[
        Path, typer.Option(envvar="MODEL_DIR", file_okay=False, help="Folder with one folder per model.")
    ] = Path("models"),
    resident: Annotated[
        bool, typer.Option("--resident", help="List the models in the memory of a running predictor instead.")
    ] = False,
    predictor: Annotated[str, typer.Option(metavar="HOST:PORT", help="Address of that predictor.")] = "127.0.0.1:51002",
    frontend: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="List the models that this running frontend serves instead.", show_default=False
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(help="With --frontend: only names with this prefix.", show_default=False)] = "",
    algorithm: Annotated[
        str, typer.Option(help="With --frontend: only models of this algorithm.", show_default=False)
    ] = "",
    released: Annotated[
        bool | None,
        typer.Option(
            "--released/--unreleased",
            help="With --frontend: only names with, or without, a release.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="With --resident: list the N most recently used; 0: all.")] = 0,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """List the models of a model folder, with --frontend those it serves, or with --resident those in memory."""
    if frontend is None and (prefix or algorithm or released is not None):
        fail("--prefix, --algorithm and --released go with --frontend", EXIT_USAGE)
    if frontend is not None and resident:
        fail("--frontend and --resident exclude each other; give one of them", EXIT_USAGE)
    try:
        if frontend is not None:
            with ManagementClient(frontend, options=connection) as client:
                served = list(client.models(prefix=prefix, algorithm=algorithm, released=released))
            _list_served(served, as_json=as_json)
        elif resident:
            _list_residents(ask_residency(predictor, limit=limit, options=connection), as_json=as_json)
        elif not model_dir.is_dir():
            fail(f"--model-dir {model_dir} is not a folder", EXIT_USAGE)
        else:
            _list_folder(ModelStore(model_dir), as_json=as_json)
    except InvalidConnection as error:
        fail(str(error), EXIT_USAGE)
    except (Unavailable, DeadlineExceeded) as error:
        if frontend is None and not resident:
            fail(str(error), EXIT_UNAVAILABLE)
        fail_unanswered(frontend or predictor, error, connection, longer="ask again")
    except ServingError as error:
        fail(str(error))


def _list_folder(store: ModelStore, *, as_json: bool) -> None:
    versions = (model_id for name in store.folders() for model_id in store.versions(name))
    rows = [_row(store, model_id) for model_id in sorted([*store.model_ids(), *versions])]
    if as_json:
        print_json(rows)
    else:
        _print_rows(_ON_DISK, rows)


def _list_served(served: Sequence[ModelSummary], *, as_json: bool) -> None:
    rows = [model.as_dict() for model in served]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        row["versions"] = " ".join(row["versions"])
        row["canary"] = f"{row['canary']['version']} ({row['canary']['share']:.4g})" if row["canary"] else ""
        row["shadow"] = row["shadow"]["version"] if row["shadow"] else ""
        # A pipeline has the labels of its models.
        row["labels"] = row["labels"] or None
    _print_rows(_SERVED, rows)


def _list_residents(residency: Residency, *, as_json: bool) -> None:
    if as_json:
        print_json(residency.as_dict())
        return
    _print_rows(_IN_MEMORY, [model.as_dict() for model in residency.models])
    if console.is_terminal:
        counters = residency.counters
        console.print(
            f"{counted(residency.resident_models, 'model')},"
            f" {residency.held_bytes / 1e6:.1f} of {residency.budget_bytes / 1e6:.0f} MB;"
            f" {counted(int(counters['hits']), 'hit')}, {counters['misses']} misses,"
            f" {counted(int(counters['loads']), 'load')}, {counted(int(counters['evictions']), 'eviction')}",
            highlight=False,
        )


def _print_rows(names: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    columns = [Column(name, right=name in _NUMBERS, whole=name in _WHOLE, words=name in _LISTS) for name in names]
    print_table(columns, [[_text(row[name]) for name in names] for row in rows])


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _row(store: ModelStore, model_id: ModelId) -> dict[str, Any]:
    row: dict[str, Any] = {"id": model_id, "version": "", "algorithm": "", "labels": 0, "tokenizer": "", "bytes": 0}
    try:
        fingerprint = store.fingerprint(model_id)
        row["bytes"] = sum(file.size for file in fingerprint.files if file)
        manifest = store.read_manifest(model_id)
    except ServingError as error:
        return row | {"state": str(error)}
    needs_more = fingerprint.missing and not manifest.is_elsewhere
    state = f"no {', no '.join(fingerprint.missing)}" if needs_more else "complete"
    return row | {
        "version": manifest.model_version,
        "algorithm": manifest.algorithm,
        "labels": None if manifest.is_elsewhere and not manifest.classes else len(manifest.classes),
        "tokenizer": manifest.tokenizer or ("" if manifest.is_elsewhere else "by vocabulary"),
        "state": state,
    }
