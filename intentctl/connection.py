"""Connections of commands to services, with the same options and environment variables for all commands."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from intent_serving_client.channels import ChannelOptions, check_options
from intent_serving_client.errors import NoAnswerInTime, Unreachable
from intent_serving_client.text_files import MARK, without_mark
from intentctl.output import EXIT_UNAVAILABLE, EXIT_USAGE, fail
from serving.domain.errors import DEADLINE_MESSAGE, DeadlineExceeded, InvalidConnection, ServingError, Unavailable

CREDENTIAL_VARIABLE: Final = "INTENT_CREDENTIAL"
"""Environment variable with the caller's API key or token itself."""

LONGER: Final = "allow more time with --timeout"
"""Advice for an expired deadline, given by commands that have that option."""

_PANEL: Final = "Connection"
_ARGUMENT: Final = "connection"
_MAX_CREDENTIAL_BYTES: Final = 1 << 14
_MARK: Final = MARK.decode()


@dataclass(frozen=True, slots=True)
class _Flags(ChannelOptions):
    """Options of a connection that were given as flags."""

    def called(self, name: str) -> str:
        """Return the flag of the field ``name``."""
        return "--tls-server-name" if name == "server_name" else f"--{name.replace('_', '-')}"


def connecting(command: Callable[..., None]) -> Callable[..., None]:
    """Add the connection options to a command, which receives them as one keyword argument, ``connection``."""
    own = inspect.signature(command, eval_str=True)
    kept = [parameter for name, parameter in own.parameters.items() if name != _ARGUMENT]
    shared = inspect.signature(_connection, eval_str=True).parameters

    @functools.wraps(command)
    def connected(**values: Any) -> None:
        connection = _connection(**{name: values.pop(name) for name in shared})
        command(**values, **{_ARGUMENT: connection})

    # Typer reads the parameters of a command from this attribute.
    connected.__signature__ = own.replace(parameters=[*kept, *shared.values()])  # type: ignore[attr-defined]
    return connected


def fail_unanswered(
    address: str,
    error: Unavailable | DeadlineExceeded,
    connection: ChannelOptions,
    *,
    longer: str = LONGER,
    instead: str = "",
) -> NoReturn:
    """Exit because a service gave no answer in time; say why, and what to do.

    Args:
        address: address of the service, ``host:port``.
        error: error of the call.
        connection: options of the connection to the service.
        longer: advice if the deadline has expired.
        instead: alternative that needs no service, as the end of a sentence.
    """
    message = str(error)
    if not isinstance(error, Unreachable | NoAnswerInTime):
        message = f"{address} cannot answer: {error}"
    if is_out_of_time(error):
        message += f"; {longer}"
    elif isinstance(error, Unreachable) and not error.is_listening and not connection.is_encrypted:
        message += f" (`intentctl up` starts the services{instead})"
    fail(message, EXIT_UNAVAILABLE)


def is_out_of_time(error: ServingError) -> bool:
    """Return whether the deadline of the call has passed, and not the time that a pipeline gives to a step."""
    return isinstance(error, NoAnswerInTime) or (isinstance(error, DeadlineExceeded) and DEADLINE_MESSAGE in str(error))


def _file(variable: str, what: str) -> Any:
    """Return an option that names a file, which the environment variable ``variable`` can name too."""
    return typer.Option(
        envvar=variable, exists=True, dir_okay=False, help=what, show_default=False, rich_help_panel=_PANEL
    )


def _connection(
    *,
    tls: Annotated[
        bool, typer.Option("--tls", help="Use TLS, with the authorities bundled with gRPC.", rich_help_panel=_PANEL)
    ] = False,
    tls_authority: Annotated[
        Path | None,
        _file("INTENT_TLS_AUTHORITY", "PEM file of the authority that signed the service's certificate."),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        _file("INTENT_TLS_CERTIFICATE", "PEM file of your certificate, if the service requires one."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        _file("INTENT_TLS_KEY", "PEM file of the private key of your certificate."),
    ] = None,
    tls_server_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name in the service's certificate, if it differs from the name in the address.",
            show_default=False,
            rich_help_panel=_PANEL,
        ),
    ] = None,
    credential_file: Annotated[
        Path | None,
        _file(
            "INTENT_CREDENTIAL_FILE",
            f"File with your API key or token; {CREDENTIAL_VARIABLE} may hold it instead. Without TLS, it can be "
            "read in transit.",
        ),
    ] = None,
) -> ChannelOptions:
    """Return the options, or exit and say what is wrong with them."""
    options = _Flags(
        tls=tls,
        tls_authority=tls_authority,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        server_name=tls_server_name,
        credential=_credential(credential_file),
    )
    try:
        check_options(options)
    except InvalidConnection as error:
        fail(str(error), EXIT_USAGE)
    return options


def _credential(file: Path | None) -> str | None:
    """Return the caller's credential; a file takes precedence over the variable that holds the credential itself."""
    if file is None:
        return os.environ.get(CREDENTIAL_VARIABLE, "").removeprefix(_MARK).strip() or None
    try:
        with file.open("rb") as opened:
            read = opened.read(_MAX_CREDENTIAL_BYTES + 1)
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", EXIT_USAGE)
    credential = without_mark(read).decode("utf-8", "replace").strip()
    if not credential or len(read) > _MAX_CREDENTIAL_BYTES:
        fail(f"{file} holds no credential; write the credential as one line", EXIT_USAGE)
    return credential
