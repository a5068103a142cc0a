"""The common way to open a gRPC channel to our services: plain or encrypted, with or without a credential.

    options = ChannelOptions(tls_authority=Path("authority.pem"), credential="the key")
    with open_channel("intent.example:51001", options) as channel:
        ...

The credential is sent with every call as ``authorization: Bearer …``. On an unencrypted connection, anyone on the
network path can read the credential, so unencrypted connections are for loopback and private networks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import grpc

from grpc_http2.client.channel import Channel
from grpc_http2.client.encryption import client_context
from grpc_http2.client.servers.addresses import addresses_in
from grpc_http2.client.settings import ChannelSettings, Tls
from serving.domain.errors import InvalidConnection

AUTHORIZATION_KEY: Final = "authorization"
"""Metadata key of the caller's credential."""

Arguments: TypeAlias = Sequence[tuple[str, int | str]]
"""Channel arguments, with gRPC's names."""

_CREDENTIAL: Final = re.compile(r"[\x21-\x7e]{1,8192}")


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """Options of a connection to a service. Naming any TLS file enables TLS."""

    tls: bool = False
    """Whether to encrypt. The service's certificate is checked against ``tls_authority``, or, without it, against the
    authorities of the system; on a blocking channel, against those that gRPC brings along."""
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

    @property
    def is_encrypted(self) -> bool:
        """Whether the channel is encrypted."""
        return self.tls or any((self.tls_authority, self.tls_certificate, self.tls_key))


PLAIN: Final = ChannelOptions()
"""Unencrypted, without a credential: for services without TLS and access control."""


def open_channel(address: str, options: ChannelOptions = PLAIN) -> grpc.Channel:
    """Return a blocking channel to ``address``, which is ``host:port``. The channel connects on the first call.

    Raises:
        InvalidConnection: a TLS file cannot be read, or the credential cannot be sent.
    """
    credentials, arguments = _credentials(options), _arguments(options)
    channel = (
        grpc.insecure_channel(address, options=arguments)
        if credentials is None
        else grpc.secure_channel(address, credentials, options=arguments)
    )
    return channel if options.credential is None else grpc.intercept_channel(channel, _Signed(_bearer(options)))


def open_async_channel(address: str, options: ChannelOptions = PLAIN) -> Channel:
    """Return an asyncio channel to ``address`` for the running event loop.

    Raises:
        InvalidConnection: as :func:`open_channel` does.
    """
    return Channel(
        addresses_in(address),
        ChannelSettings(max_message_bytes=options.max_answer_bytes),
        tls=_encryption(options),
        metadata=() if options.credential is None else (_bearer(options),),
    )


def check_options(options: ChannelOptions) -> None:
    """Check that channels can be opened with ``options``.

    Raises:
        InvalidConnection: as :func:`open_channel` does.
    """
    _credentials(options)
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
    authority_pem, certificate_pem, key_pem = _materials(authority, certificate, key)
    return grpc.ssl_channel_credentials(authority_pem, key_pem, certificate_pem)


def _credentials(options: ChannelOptions) -> grpc.ChannelCredentials | None:
    if not options.is_encrypted:
        return None
    return tls_credentials(options.tls_authority, options.tls_certificate, options.tls_key)


def _encryption(options: ChannelOptions) -> Tls | None:
    if not options.is_encrypted:
        return None
    authority, certificate, key = _materials(options.tls_authority, options.tls_certificate, options.tls_key)
    try:
        context = client_context(authority, certificate, key)
    except OSError as error:
        raise InvalidConnection(f"the files for TLS cannot be used: {error.strerror or error}") from error
    return Tls(lambda: context, options.server_name)


def _materials(
    authority: Path | None, certificate: Path | None, key: Path | None
) -> tuple[bytes | None, bytes | None, bytes | None]:
    if (certificate is None) != (key is None):
        raise InvalidConnection("the caller's certificate and its key belong together; set both or none")
    return _contents(authority, "authority"), _contents(certificate, "certificate"), _contents(key, "key")


def _contents(file: Path | None, kind: str) -> bytes | None:
    if file is None:
        return None
    try:
        contents = file.read_bytes()
    except OSError as error:
        raise InvalidConnection(f"the TLS {kind} file cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in contents:
        raise InvalidConnection(f"the TLS {kind} file is not PEM")
    return contents


def _arguments(options: ChannelOptions) -> Arguments:
    named = () if options.server_name is None else (("grpc.ssl_target_name_override", options.server_name),)
    return (
        ("grpc.max_receive_message_length", options.max_answer_bytes),
        # Proxies in the environment are meant for web traffic.
        ("grpc.enable_http_proxy", 0),
        *named,
    )


def _bearer(options: ChannelOptions) -> tuple[str, str]:
    return AUTHORIZATION_KEY, bearer(options.credential or "")


class _Details(NamedTuple):
    """Details of a call; the type that gRPC passes to interceptors cannot be changed."""

    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Signed(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Sends the credential with every call of a blocking channel. Requests to our services are single messages."""

    def __init__(self, entry: tuple[str, str]) -> None:
        self._entry = entry

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Pass the call on, with the credential."""
        return continuation(self._with_credential(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Pass the call on, with the credential."""
        return continuation(self._with_credential(client_call_details), request)

    def _with_credential(self, details: Any) -> Any:
        return _Details(
            details.method,
            details.timeout,
            (*(details.metadata or ()), self._entry),
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
