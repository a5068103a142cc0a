"""Shared parts of the commands that manage models: their target, their exit codes, and the display of releases."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from intent_serving_client.channels import ChannelOptions
from intent_serving_client.client_base import DEFAULT_ADDRESS
from intent_serving_client.management_client import ManagementClient
from intentctl.connection import fail_unanswered
from intentctl.output import (
    EXIT_CONFLICT,
    EXIT_UNAVAILABLE,
    EXIT_USAGE,
    Column,
    console,
    fail,
    print_json,
    print_line,
    print_table,
)
from serving.domain.errors import DeadlineExceeded, InvalidRequest, ReleaseConflict, ServingError, Unavailable
from serving.domain.management import ReleaseState

if TYPE_CHECKING:
    from intentctl.volume_releases import VolumeReleases

Name = Annotated[str, typer.Argument(help="Name that has versions.", show_default=False)]
Frontend = Annotated[str, typer.Option(metavar="HOST:PORT", help="Address of the frontend.")]
OnVolume = Annotated[
    Path | None,
    typer.Option(
        "--model-dir",
        exists=True,
        file_okay=False,
        help="Change this model folder directly instead of through a frontend, for services that may only read it.",
        show_default=False,
    ),
]
ReadVolume = Annotated[
    Path | None,
    typer.Option(
        "--model-dir",
        exists=True,
        file_okay=False,
        help="Read this model folder directly instead of through a frontend; only a frontend knows trial results.",
        show_default=False,
    ),
]
Expected = Annotated[
    int | None,
    typer.Option(
        "--expect",
        min=0,
        metavar="REVISION",
        help="Revision that you expect; if the current one differs, nothing changes and the exit code is 4. 0: no"
        " release exists yet.",
        show_default=False,
    ),
]
Comment = Annotated[str, typer.Option(help="Reason for the change, recorded in the history.", show_default=False)]
FRONTEND: Final = DEFAULT_ADDRESS

Manager: TypeAlias = "ManagementClient | VolumeReleases"

_HISTORY: Final = (
    Column("revision", right=True),
    Column("at", whole=True),
    Column("by", whole=True),
    Column("action", whole=True),
    Column("version", whole=True),
    Column("label", whole=True),
    Column("stable", style="bold green", whole=True),
    Column("comment"),
)
_TRIALS: Final = (
    Column("role", whole=True),
    Column("version", whole=True),
    Column("answers", right=True),
    Column("errors", right=True),
    Column("compared", right=True),
    Column("agreed", right=True),
    Column("skipped", right=True),
)


@contextlib.contextmanager
def managing(frontend: str, connection: ChannelOptions, model_dir: Path | None = None) -> Iterator[Manager]:
    """Yield the target: a frontend, or a model folder. An error ends the command with its own exit code."""
    with ending_by_code(frontend if model_dir is None else None, connection):
        if model_dir is not None:
            yield _on_volume(model_dir)
            return
        with ManagementClient(frontend, options=connection) as client:
            yield client


@contextlib.contextmanager
def ending_by_code(frontend: str | None, connection: ChannelOptions) -> Iterator[None]:
    """End the command if an error is raised, with the exit code of that error."""
    try:
        yield
    except (Unavailable, DeadlineExceeded) as error:
        if frontend is None:
            fail(str(error), EXIT_UNAVAILABLE)
        fail_unanswered(frontend, error, connection, longer="try again, or find out what keeps the frontend busy")
    except ReleaseConflict as error:
        fail(f"{error} (`intentctl history` shows it)", EXIT_CONFLICT)
    except InvalidRequest as error:
        fail(str(error).replace("runId", "the model id"), EXIT_USAGE)
    except ServingError as error:
        fail(str(error).replace("runId", "id").replace("force=true", "--force"))


def print_change(state: ReleaseState, *, as_json: bool) -> None:
    """Print the state of a release after a change, in one line."""
    if as_json:
        print_json(state.as_dict())
    else:
        print_line(summary_of(state))


def print_state(state: ReleaseState, *, as_json: bool) -> None:
    """Print a release: what is live, the counts of trials, and its history; off a terminal, only the history."""
    if as_json:
        print_json(state.as_dict())
        return
    if console.is_terminal:
        print_line(summary_of(state))
        if state.trials:
            print_table(_TRIALS, [[str(value) for value in trial.as_dict().values()] for trial in state.trials])
    history = () if state.release is None else state.release.history
    print_table(
        _HISTORY,
        [
            (
                str(change.revision),
                f"{change.at:%Y-%m-%d %H:%M:%S}",
                change.by,
                change.action,
                change.version,
                change.label,
                change.stable,
                change.comment,
            )
            for change in history
        ],
    )


def summary_of(state: ReleaseState) -> str:
    """Return in one line what is live."""
    release = state.release
    if release is None:
        return f"{state.name} has no release"
    parts = [f"{state.name} revision {release.revision}: stable {release.stable}"]
    if release.canary is not None:
        parts.append(f"canary {release.canary.version} ({release.canary.share:.4g} of the calls)")
    if release.shadow is not None:
        parts.append(f"shadow {release.shadow.version}")
    parts += [f"{label} {version}" for label, version in sorted(release.labels.items())]
    return ", ".join(parts)


def _on_volume(model_dir: Path) -> VolumeReleases:
    try:
        # The module needs the predictor's packages, which take a moment to import.
        from intentctl.volume_releases import VolumeReleases  # noqa: PLC0415
    except ModuleNotFoundError as error:
        fail(f"trying a version requires the predictor's packages; {error.name} is not installed")
    return VolumeReleases(model_dir)
