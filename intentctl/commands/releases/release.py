"""``intentctl release``: make a version live."""

from __future__ import annotations

from typing import Annotated

import typer

from intent_serving_client.channels import ChannelOptions
from intentctl.connection import connecting
from intentctl.managing import FRONTEND, Comment, Expected, Frontend, Name, OnVolume, managing, print_change
from intentctl.output import EXIT_USAGE, AsJson, fail
from intentctl.shares import share
from serving.domain.management import Role


def _share(text: str) -> float:
    """Return a share from 0 to 1 that is written as ``10%`` or as ``0.1``."""
    value = text.strip()
    if not value.endswith("%"):
        return share(value)
    try:
        percent = float(value[:-1])
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a share; write a share as 10% or 0.1") from error
    return share(str(percent / 100))


@connecting
def release(
    name: Name,
    version: Annotated[str, typer.Argument(help="Version to release: the name of its folder.", show_default=False)],
    *,
    canary: Annotated[
        float | None,
        typer.Option(
            parser=_share,
            metavar="SHARE",
            help="Give the version this share of the calls, such as 10% or 0.1, beside the stable version.",
            show_default=False,
        ),
    ] = None,
    max_error_rate: Annotated[
        float | None,
        typer.Option(
            parser=_share,
            metavar="SHARE",
            help="With --canary: take the canary back if more than this share of its answers fails; 2% if omitted.",
            show_default=False,
        ),
    ] = None,
    max_disagreement: Annotated[
        float | None,
        typer.Option(
            parser=_share,
            metavar="SHARE",
            help="With --canary: take the canary back if more than this share of its answers differs from stable; 20%"
            " if omitted.",
            show_default=False,
        ),
    ] = None,
    min_answers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            help="With --canary: number of answers before it is judged; 50 if omitted.",
            show_default=False,
        ),
    ] = None,
    shadow: Annotated[
        bool,
        typer.Option(
            "--shadow",
            help="Send the version the queries of stable and compare the answers; no caller receives its answers.",
        ),
    ] = False,
    label: Annotated[
        str | None,
        typer.Option(help="Serve the version to calls for name@label; the stable version stays.", show_default=False),
    ] = None,
    expect: Expected = None,
    comment: Comment = "",
    frontend: Frontend = FRONTEND,
    model_dir: OnVolume = None,
    as_json: AsJson = False,
    connection: ChannelOptions,
) -> None:
    """Make a version live: for all calls, for a share of them, as a shadow, or under a label.

    The version must first load and answer the Example of its manifest. Otherwise, what was live stays live.
    """
    if (canary is not None) + shadow + (label is not None) > 1:
        fail("--canary, --shadow and --label exclude each other; release them one by one", EXIT_USAGE)
    bounds = (max_error_rate, max_disagreement, min_answers)
    if canary is None and any(bound is not None for bound in bounds):
        fail("--max-error-rate, --max-disagreement and --min-answers go with --canary", EXIT_USAGE)
    role: Role = "canary" if canary is not None else "shadow" if shadow else "stable" if label is None else "label"
    with managing(frontend, connection, model_dir) as manager:
        state = manager.release(
            name,
            version,
            role=role,
            label=label or "",
            share=canary,
            max_error_rate=max_error_rate,
            max_disagreement=max_disagreement,
            min_answers=min_answers,
            expected_revision=expect,
            comment=comment,
        )
    print_change(state, as_json=as_json)
