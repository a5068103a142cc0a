"""Causes of connection failures in TLS, found by a separate handshake.

gRPC reports most of them with one status, UNAVAILABLE, and with messages of its TLS library.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final

from grpc_http2.client.encryption import client_context
from grpc_http2.client.servers.addresses import addresses_in
from intent_serving_client.channels import ChannelOptions
from intent_serving_client.material import contents_of

_SECONDS: Final = 3.0
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_FRAME_HEAD: Final = 9
_SETTINGS: Final = 4

# Codes of OpenSSL's certificate verification (X509_V_ERR_...).
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_UNKNOWN_AUTHORITY: Final = frozenset({18, 19, 20, 21})
_WRONG_NAME: Final = frozenset({62, 64})

_REFUSED: Final = {
    "UNKNOWN_CA": "it does not know the authority that signed it",
    "CERTIFICATE_EXPIRED": "it has expired",
}


def tls_fault(address: str, options: ChannelOptions) -> str:
    """Return what is wrong with the encryption of connections to ``address``, and what to do. Blocks for seconds.

    The result is empty if nothing is, or if nothing answers at the address.
    """
    target = addresses_in(address)[0]
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    if not port.isdecimal() or not host:
        return ""
    with contextlib.suppress(OSError):
        with socket.create_connection((host, int(port)), _SECONDS) as connection:
            connection.close()
        return _of_tls(host, int(port), options) if options.is_encrypted else _of_plain_text(host, int(port))
    return ""


def _of_plain_text(host: str, port: int) -> str:
    if _speaks_plain_http2(host, port):
        return ""
    try:
        with _shaken(host, port, _unverified(), host):
            pass
    except ssl.SSLError as error:
        # An alert is an answer in TLS, too.
        if "ALERT" not in (error.reason or ""):
            return ""
    return (
        "it speaks TLS, and you do not; give --tls-authority, or --tls if a public authority has signed its certificate"
    )


def _of_tls(host: str, port: int, options: ChannelOptions) -> str:
    name = options.server_name or host
    context = client_context(
        contents_of(options.tls_authority, "authority"),
        contents_of(options.tls_certificate, "certificate"),
        contents_of(options.tls_key, "key"),
    )
    try:
        with _shaken(host, port, context, name) as connection:
            if connection.selected_alpn_protocol() != "h2":
                return "it speaks TLS, and not gRPC; name the port of the service"
            # A server that requires a certificate says so, or disconnects, after the handshake.
            connection.sendall(_PREFACE)
            return "" if connection.recv(_FRAME_HEAD) else _of_caller("", options)
    except ssl.SSLCertVerificationError as error:
        return _of_certificate(error, host, port, name, options)
    except (ssl.SSLError, ConnectionError) as error:
        if _speaks_plain_http2(host, port):
            return "it speaks no TLS; leave out --tls and the other options of TLS"
        return _of_caller(getattr(error, "reason", None) or "", options)


def _of_caller(reason: str, options: ChannelOptions) -> str:
    """Return the fault of a handshake that the service has refused; ``reason`` is that of OpenSSL, if there is one."""
    if options.tls_certificate is None:
        return (
            "it refuses the connection, probably because it requires a certificate of its callers; give yours with"
            " --tls-certificate and --tls-key"
        )
    told = next((said for alert, said in _REFUSED.items() if alert in reason), "it does not accept it")
    return f"it refuses your --tls-certificate: {told}"


def _of_certificate(
    error: ssl.SSLCertVerificationError, host: str, port: int, name: str, options: ChannelOptions
) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return "its certificate has expired; have it renewed"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet; compare the clocks of both machines"
    if code in _UNKNOWN_AUTHORITY:
        if options.tls_authority is None:
            return "its certificate is of an unknown authority; give the authority's certificate with --tls-authority"
        return "its certificate is not signed by the authority in --tls-authority; give the one that signed it"
    if code in _WRONG_NAME:
        names = ", ".join(_names_of(host, port, options)) or "no name"
        return (
            f"its certificate is for {names}, and not for {name}; call the service by that name, or give the name with"
            " --tls-server-name"
        )
    return f"its certificate cannot be verified: {error.verify_message}"


def _names_of(host: str, port: int, options: ChannelOptions) -> list[str]:
    """Return the names in a certificate that is verified except for its names."""
    context = client_context(contents_of(options.tls_authority, "authority"), None, None)
    context.check_hostname = False
    with contextlib.suppress(OSError), _shaken(host, port, context, host) as connection:
        certificate: Any = connection.getpeercert() or {}
        return [_written(kind, str(name)) for kind, name in certificate.get("subjectAltName", ())]
    return []


def _written(kind: str, name: str) -> str:
    return ipaddress.ip_address(name.strip()).compressed if kind == "IP Address" else name


def _speaks_plain_http2(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), _SECONDS) as connection:
        connection.sendall(_PREFACE)
        head = connection.recv(_FRAME_HEAD)
        return len(head) == _FRAME_HEAD and head[3] == _SETTINGS
    return False


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # This connection only serves to find out the protocol.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@contextlib.contextmanager
def _shaken(host: str, port: int, context: ssl.SSLContext, name: str) -> Iterator[ssl.SSLSocket]:
    """Yield a connection after its handshake. Raises OSError."""
    with (
        socket.create_connection((host, port), _SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=name) as encrypted,
    ):
        yield encrypted
