"""One way to open a gRPC channel to a service of ours: plain or encrypted, with or without a credential.

    options = ChannelOptions(tls_authority=Path("authority.pem"), credential="the key")
    with open_channel("intent.example:51001", options) as channel:
        ...

A credential goes with every call as ``authorization: Bearer …``. Over a connection that is not encrypted whoever is on
the way can read it: that is for loopback and private networks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import grpc

from grpc_http2.client.addresses import addresses_in
from grpc_http2.client.channel import Channel
from grpc_http2.client.encryption import client_context
from grpc_http2.client.settings import ChannelSettings, Tls
from serving.domain.errors import InvalidConnection

AUTHORIZATION_KEY: Final = "authorization"
"""Metadata key of the caller's credential."""

Arguments: TypeAlias = Sequence[tuple[str, int | str]]
"""Channel arguments, as gRPC names them."""

_CREDENTIAL: Final = re.compile(r"[\x21-\x7e]{1,8192}")


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """How a service is connected to. Naming any file of TLS turns it on."""

    tls: bool = False
    """Encrypt; the service's certificate is checked against ``tls_authority``, or the authorities that the system, or
    on a blocking channel gRPC, brings."""
    tls_authority: Path | None = None
    """PEM file of the authority that must have signed the service's certificate."""
    tls_certificate: Path | None = None
    """PEM file of the caller's own certificate, where the service asks for one."""
    tls_key: Path | None = None
    """PEM file of its private key."""
    server_name: str | None = None
    """The name that the service's certificate must be for, where it is not the host of the address."""
    credential: str | None = field(default=None, repr=False)
    """An API key, or a token."""
    max_answer_bytes: int = 64 << 20
    """The largest message that is taken."""

    @property
    def is_encrypted(self) -> bool:
        """Whether the channel is."""
        return self.tls or any((self.tls_authority, self.tls_certificate, self.tls_key))


PLAIN: Final = ChannelOptions()
"""Not encrypted, without a credential: what services without TLS and access take."""


def open_channel(address: str, options: ChannelOptions = PLAIN) -> grpc.Channel:
    """Return a blocking channel to ``address``, which is ``host:port``. It connects with the first call.

    Raises:
        InvalidConnection: a file of TLS cannot be read, or the credential cannot be sent.
    """
    credentials, arguments = _credentials(options), _arguments(options)
    channel = (
        grpc.insecure_channel(address, options=arguments)
        if credentials is None
        else grpc.secure_channel(address, credentials, options=arguments)
    )
    return channel if options.credential is None else grpc.intercept_channel(channel, _Signed(_bearer(options)))


def open_async_channel(address: str, options: ChannelOptions = PLAIN) -> Channel:
    """Return the same for asyncio, for the event loop that runs.

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
    """Return if channels can be opened with ``options``.

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
    """Return what gRPC takes for an encrypted channel, from PEM files.

    Raises:
        InvalidConnection: one cannot be read, or a certificate comes without its key.
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
        raise InvalidConnection("the caller's certificate and its key belong together; name both or none")
    return _contents(authority, "authority"), _contents(certificate, "certificate"), _contents(key, "key")


def _contents(file: Path | None, kind: str) -> bytes | None:
    if file is None:
        return None
    try:
        contents = file.read_bytes()
    except OSError as error:
        raise InvalidConnection(f"the file of the TLS {kind} cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in contents:
        raise InvalidConnection(f"the file of the TLS {kind} is not PEM")
    return contents


def _arguments(options: ChannelOptions) -> Arguments:
    named = () if options.server_name is None else (("grpc.ssl_target_name_override", options.server_name),)
    return (
        ("grpc.max_receive_message_length", options.max_answer_bytes),
        # Proxies of the environment are for the web.
        ("grpc.enable_http_proxy", 0),
        *named,
    )


def _bearer(options: ChannelOptions) -> tuple[str, str]:
    return AUTHORIZATION_KEY, bearer(options.credential or "")


class _Details(NamedTuple):
    """Of a call; the type that gRPC gives interceptors has no way to change it."""

    method: Any
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Signed(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Sends the credential with every call of a blocking channel. Requests of our services are single messages."""

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
