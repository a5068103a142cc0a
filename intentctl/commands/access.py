"""``intentctl access``: make keys for callers, and check access files."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from intentctl.command import IntentCommand, IntentGroup
from intentctl.output import EXIT_FAILED, EXIT_USAGE, AsJson, Column, console, fail, print_json, print_table
from serving.access.access_file import InvalidAccessFile, entry_of_key, read_access_file
from serving.access.access_map import read_access_map
from serving.access.keys import hash_of, new_key
from serving.call.counters import AccessCounters

_KEY_MODE: Final = 0o600
_CERTIFICATE_MODE: Final = 0o644
_COLUMNS: Final = ("identity", "rights", "models", "keys", "expired", "certificates", "limits")
_WHOLE: Final = {"identity"}
_LISTS: Final = {"models", "certificates"}

access = typer.Typer(
    name="access",
    cls=IntentGroup,
    help="Make API keys and certificates for trials, and check the access file that names who may call.",
    no_args_is_help=True,
)


@access.command(cls=IntentCommand)
def key(
    *,
    days: Annotated[
        float | None, typer.Option(min=0.0, help="Days until the key expires; if omitted, it never expires.")
    ] = None,
    comment: Annotated[str, typer.Option(help="Purpose of the key, stored beside its hash.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make an API key. The key is shown once; the access file stores its hash."""
    made = new_key()
    expires = None if days is None else (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
    entry = entry_of_key(hash_of(made), expires, comment)
    if as_json or not console.is_terminal:
        print_json({"key": made, "entry": entry})
        return
    console.print("[bold]For the caller[/], to be kept secret; the key cannot be shown again:")
    console.print(made, highlight=False, soft_wrap=True)
    console.print("\n[bold]For the access file[/], among the [bold]keys[/] of an identity:")
    console.print_json(data=entry)


@access.command(cls=IntentCommand)
def check(
    file: Annotated[Path, typer.Argument(help="Path of the access file.", show_default=False)],
    *,
    as_json: AsJson = False,
) -> None:
    """Read an access file, and all files that it names, as a service would, and list what each identity may do."""
    try:
        content = read_access_file(file)
        read_access_map(file, AccessCounters())
    except InvalidAccessFile as error:
        fail(str(error), EXIT_FAILED if file.exists() else EXIT_USAGE)
    now = datetime.now(UTC)
    rows = []
    for name, entry in content.identities.items():
        limits = {} if entry.limits is None else entry.limits.model_dump(exclude_defaults=True)
        rows.append(
            {
                "identity": name,
                "rights": sorted(right.value for right in entry.rights),
                "models": list(entry.models),
                "keys": len(entry.keys),
                "expired": sum(known.expires is not None and known.expires <= now for known in entry.keys),
                "certificates": list(entry.certificates),
                "limits": limits,
            }
        )
    if as_json:
        print_json({"identities": rows, "tokens": content.jwt is not None})
        return
    columns = [Column(name, whole=name in _WHOLE, words=name in _LISTS) for name in _COLUMNS]
    print_table(columns, [[_shown(row[name]) for name in _COLUMNS] for row in rows])


@access.command("trial-certificates")
def trial_certificates(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if it does not exist.", show_default=False)],
    *,
    name: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="Name or address by which the services are called, beside localhost and their own names; repeatable.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[float, typer.Option(min=0.01, max=90.0, help="Days until the certificates expire.")] = 7.0,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the files of an earlier call.")] = False,
) -> None:
    """Make certificates for trying TLS: an authority, and a pair for each service and a caller.

    The authority's key is kept nowhere, so only the certificates of one call trust each other. Services that others
    rely on get their certificates from an authority of your own.
    """
    # Certificates take megabytes of libraries, which other commands do not need.
    from intentctl.trial_certificates import trial_certificates as made_for  # noqa: PLC0415

    try:
        files = made_for(name or (), days)
    except ValueError as error:
        fail(f"--name {', '.join(name or ())}: {error}", EXIT_USAGE)
    there = [each for each in files if (folder / each).exists()]
    if there and not replace:
        fail(f"{folder} has {', '.join(there)} already; give --replace, or name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each, content in files.items():
            _write(folder / each, content)
    except OSError as error:
        fail(f"{folder} cannot be written to: {error.strerror}")
    for each in files:
        sys.stdout.write(f"{folder / each}\n")


def _write(path: Path, content: bytes) -> None:
    """Write a file; a key is readable only by its owner, from its creation on."""
    mode = _KEY_MODE if path.suffix == ".key" else _CERTIFICATE_MODE
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:g}" for name, number in value.items())
    return str(value)
