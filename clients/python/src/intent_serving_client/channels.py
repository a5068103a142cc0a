"""The common way to open a gRPC channel to our services: plain or encrypted, with or without a credential.

    options = ChannelOptions(tls_authority=Path("authority.pem"), credential="the key")
    with open_channel("intent.example:51001", options) as channel:
        ...

The credential is sent with every call as ``authorization: Bearer …``. On an unencrypted connection, anyone on the
network path can read the credential, so unencrypted connections are for loopback and private networks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import grpc

from intent_serving_client.addresses import InvalidAddress, addresses_in, check_address
from intent_serving_client.errors import InvalidConnection
from intent_serving_client.material import TlsMaterial, read_material
from intent_serving_client.metadata import AUTHORIZATION_KEY
from intent_serving_client.signing import Signed, async_signed

Arguments: TypeAlias = Sequence[tuple[str, int | str]]
"""Channel arguments, with gRPC's names."""

MAX_ATTEMPTS: Final = 5
"""Maximum number of attempts of a call, including the first; grpcio allows no more."""

# Packages that the extra ``fast`` installs.
_OF_FAST: Final = frozenset({"grpc_http2", "ngh2", "structlog"})
_RETRIED: Final = "prediction.PredictionService"
_SOCKET: Final = "unix:"
_CREDENTIAL: Final = re.compile(r"[\x21-\x7e]{1,8192}")


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """Options of a connection to a service. Naming any TLS file enables TLS."""

    tls: bool = False
    """Whether to encrypt. The service's certificate is checked against ``tls_authority``, or, without it, against the
    authorities of the system; on a blocking channel, against those that come with gRPC."""
    tls_authority: Path | None = None
    """PEM file of the authority that must have signed the service's certificate."""
    tls_certificate: Path | None = None
    """PEM file of the caller's own certificate, where the service requests one."""
    tls_key: Path | None = None
    """PEM file of the private key of ``tls_certificate``."""
    server_name: str | None = None
    """Name for which the service's certificate must be issued, if it is not the host of the address."""
    credential: str | None = field(default=None, repr=False)
    """API key or token."""
    max_answer_bytes: int = 64 << 20
    """Size of the largest message that is accepted, in bytes."""
    attempts: int = 1
    """Maximum number of attempts of a prediction that fails with UNAVAILABLE, from 1 to 5; they share its timeout."""
    fast: bool | None = None
    """Whether asyncio clients use the channel of the extra ``fast``; ``None``: if the extra is installed."""

    @property
    def is_encrypted(self) -> bool:
        """Whether the channel is encrypted."""
        return self.tls or any((self.tls_authority, self.tls_certificate, self.tls_key))

    def called(self, name: str) -> str:
        """Return what messages call the field ``name``. Command lines have other names for options than programs."""
        return name


PLAIN: Final = ChannelOptions()
"""Unencrypted, without a credential: for services without TLS and access control."""


def open_channel(address: str, options: ChannelOptions = PLAIN) -> grpc.Channel:
    """Return a blocking channel to ``address``, which is ``host:port``. The channel connects on the first call.

    Raises:
        InvalidConnection: a TLS file cannot be read, the credential cannot be sent, the attempts are out of range, or
            ``address`` is not an address.
    """
    _check_target(address)
    credentials, arguments = _credentials(options), _arguments(options)
    channel = (
        grpc.insecure_channel(address, options=arguments)
        if credentials is None
        else grpc.secure_channel(address, credentials, options=arguments)
    )
    return channel if options.credential is None else grpc.intercept_channel(channel, Signed(_bearer(options)))


def open_async_channel(address: str, options: ChannelOptions = PLAIN) -> grpc.aio.Channel:
    """Return an asyncio channel to ``address`` for the running event loop.

    Raises:
        InvalidConnection: as :func:`open_channel` does; or ``options`` require the extra ``fast``, which is missing.
    """
    _check_target(address)
    open_fast_channel = _fast_opener(options.fast)
    if open_fast_channel is None:
        return _open_async_channel(address, options)
    return open_fast_channel(
        address,
        _material(options),
        () if options.credential is None else (_bearer(options),),
        max_answer_bytes=options.max_answer_bytes,
        attempts=_attempts(options),
    )


def _open_async_channel(address: str, options: ChannelOptions) -> grpc.aio.Channel:
    credentials, arguments = _credentials(options), _arguments(options)
    signing = () if options.credential is None else async_signed(_bearer(options))
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=arguments, interceptors=signing)
    return grpc.aio.secure_channel(address, credentials, options=arguments, interceptors=signing)


def _fast_opener(fast: bool | None) -> Callable[..., grpc.aio.Channel] | None:
    """Return the function that opens a fast channel; ``None`` if the channel of grpcio is to be used."""
    if fast is False:
        return None
    try:
        from intent_serving_client.fast_channel import open_fast_channel  # noqa: PLC0415 - installed by an extra
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _OF_FAST:
            raise
        if fast:
            raise InvalidConnection('the fast channel needs pip install "intent-serving-client[fast]"') from error
        return None
    return open_fast_channel


def _check_target(target: str) -> None:
    """Check the addresses in a target in gRPC's notation. A path of a unix socket is left to the transport."""
    if target.startswith(_SOCKET):
        return
    for address in addresses_in(target):
        try:
            check_address(address)
        except InvalidAddress as error:
            raise InvalidConnection(f"the address {address!r} cannot be used: {error}") from error


def check_options(options: ChannelOptions) -> None:
    """Check that channels can be opened with ``options``.

    Raises:
        InvalidConnection: as :func:`open_channel` does.
    """
    _credentials(options)
    _attempts(options)
    if options.credential is not None:
        bearer(options.credential)


def bearer(credential: str) -> str:
    """Return the value of ``authorization`` that carries ``credential``.

    Raises:
        InvalidConnection: metadata cannot carry it.
    """
    if not _CREDENTIAL.fullmatch(credential):
        raise InvalidConnection("the credential must be one line of printable ASCII without spaces")
    return f"Bearer {credential}"


def tls_credentials(authority: Path | None, certificate: Path | None, key: Path | None) -> grpc.ChannelCredentials:
    """Return gRPC's credentials for an encrypted channel, from PEM files.

    Raises:
        InvalidConnection: a file cannot be read, or only one of certificate and key is given.
    """
    material = read_material(authority, certificate, key)
    return grpc.ssl_channel_credentials(material.authority, material.key, material.certificate)


def _material(options: ChannelOptions) -> TlsMaterial | None:
    if not options.is_encrypted:
        return None
    return read_material(options.tls_authority, options.tls_certificate, options.tls_key, options.server_name)


def _credentials(options: ChannelOptions) -> grpc.ChannelCredentials | None:
    if not options.is_encrypted:
        return None
    return tls_credentials(options.tls_authority, options.tls_certificate, options.tls_key)


def _attempts(options: ChannelOptions) -> int:
    if not 1 <= options.attempts <= MAX_ATTEMPTS:
        raise InvalidConnection(f"attempts must be from 1 to {MAX_ATTEMPTS}")
    return options.attempts


def _arguments(options: ChannelOptions) -> Arguments:
    named = () if options.server_name is None else (("grpc.ssl_target_name_override", options.server_name),)
    return (
        ("grpc.max_receive_message_length", options.max_answer_bytes),
        # Proxies in the environment are meant for web traffic.
        ("grpc.enable_http_proxy", 0),
        *named,
        *_retries(_attempts(options)),
    )


def _retries(attempts: int) -> Arguments:
    """Return the arguments for retries, with the pauses and the budget of the fast channel."""
    if attempts == 1:
        return ()
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": "0.03s",
        "maxBackoff": "0.3s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    config = {
        "methodConfig": [{"name": [{"service": _RETRIED}], "retryPolicy": policy}],
        "retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.1},
    }
    return (("grpc.service_config", json.dumps(config)),)


def _bearer(options: ChannelOptions) -> tuple[str, str]:
    return AUTHORIZATION_KEY, bearer(options.credential or "")
