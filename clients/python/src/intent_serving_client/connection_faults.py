"""Causes of connection failures, found by separate connections.

gRPC reports most of them with one status, UNAVAILABLE, and with messages of its TLS library.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from intent_serving_client.addresses import addresses_in
from intent_serving_client.channels import ChannelOptions
from intent_serving_client.errors import InvalidConnection
from intent_serving_client.material import contents_of

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
# Reasons of OpenSSL for an answer that is not in TLS.
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST"})
_OTHER_PROTOCOL: Final = "it does not speak gRPC; give the port of the service"


class ConnectionFault(NamedTuple):
    """A fault of connections to an address, with what to do; empty if no fault was found."""

    text: str = ""
    is_listening: bool = True
    """Whether something accepts connections at the address."""


def connection_fault(address: str, options: ChannelOptions, seconds: float = 3.0) -> ConnectionFault:
    """Return what is wrong with connections to ``address``. Blocks.

    Args:
        address: address of the service, in gRPC's notation; of several, the first.
        options: options of the connection.
        seconds: timeout of each step; there are at most four.
    """
    host, _, port = addresses_in(address)[0].rpartition(":")
    host = host.strip("[]")
    if not port.isdecimal() or not host:
        return ConnectionFault()
    listener = _Listener(host, int(port), options, seconds)
    try:
        with listener.connected():
            pass
    except OSError as error:
        return ConnectionFault(_of_address(error, host, port), is_listening=False)
    # Files may have been removed since the connection was opened.
    with contextlib.suppress(OSError, InvalidConnection):
        return ConnectionFault(listener.fault_of_tls() if options.is_encrypted else listener.fault_of_plain_text())
    return ConnectionFault()


def _of_address(error: OSError, host: str, port: str) -> str:
    if isinstance(error, socket.gaierror):
        return f"the name {host} cannot be resolved; check how it is written"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens on port {port} there; start the service, or give its port"
    if isinstance(error, TimeoutError):
        return "the host does not respond; check the address, and the firewalls on the way"
    return f"the host cannot be reached ({error.strerror}); check the address"


@dataclass(frozen=True, slots=True)
class _Listener:
    """An address at which something accepts connections."""

    host: str
    port: int
    options: ChannelOptions
    seconds: float

    def fault_of_plain_text(self) -> str:
        """Return what is wrong with connections without TLS. Raises OSError."""
        if self._speaks_plain_http2():
            return ""
        try:
            with self._shaken(_unverified(), self.host):
                pass
        except ssl.SSLError as error:
            if error.reason in _NOT_TLS:
                return _OTHER_PROTOCOL
            # An alert is an answer in TLS, too.
            if "ALERT" not in (error.reason or ""):
                return ""
        tls, authority = self.options.called("tls"), self.options.called("tls_authority")
        return (
            f"it speaks TLS, and you do not; give {authority}, or {tls} if a public authority has signed its"
            " certificate"
        )

    def fault_of_tls(self) -> str:
        """Return what is wrong with connections with TLS. Raises OSError."""
        name = self.options.server_name or self.host
        context = _context(self.options)
        if self.options.tls_certificate is not None:
            context.load_cert_chain(self.options.tls_certificate, self.options.tls_key)
        try:
            with self._shaken(context, name) as connection:
                if connection.selected_alpn_protocol() != "h2":
                    return _OTHER_PROTOCOL
                # A server that requires a certificate says so, or disconnects, after the handshake.
                connection.sendall(_PREFACE)
                return "" if connection.recv(_FRAME_HEAD) else self._of_caller("")
        except ssl.SSLCertVerificationError as error:
            return self._of_certificate(error, name)
        except (ssl.SSLError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or ""
            if self._speaks_plain_http2():
                return f"it speaks no TLS; leave out {self.options.called('tls')} and the other options of TLS"
            return _OTHER_PROTOCOL if reason in _NOT_TLS else self._of_caller(reason)

    def _of_caller(self, reason: str) -> str:
        """Return the fault of a handshake that the service has refused; ``reason`` is that of OpenSSL, if any."""
        certificate, key = self.options.called("tls_certificate"), self.options.called("tls_key")
        if self.options.tls_certificate is None:
            return (
                "it refuses the connection, probably because it requires a certificate of its callers; give yours with"
                f" {certificate} and {key}"
            )
        told = next((said for alert, said in _REFUSED.items() if alert in reason), "it does not accept it")
        return f"it refuses your {certificate}: {told}"

    def _of_certificate(self, error: ssl.SSLCertVerificationError, name: str) -> str:
        code, authority = error.verify_code, self.options.called("tls_authority")
        if code == _EXPIRED:
            return "its certificate has expired; have it renewed"
        if code == _NOT_YET_VALID:
            return "its certificate is not valid yet; compare the clocks of both machines"
        if code in _UNKNOWN_AUTHORITY:
            if self.options.tls_authority is None:
                return f"its certificate is of an unknown authority; give the authority's certificate with {authority}"
            return f"its certificate is not signed by the authority in {authority}; give the one that signed it"
        if code in _WRONG_NAME:
            names = ", ".join(self._names()) or "no name"
            return (
                f"its certificate is for {names}, and not for {name}; call the service by that name, or give the name"
                f" with {self.options.called('server_name')}"
            )
        return f"its certificate cannot be verified: {error.verify_message}"

    def _names(self) -> list[str]:
        """Return the names in a certificate that is verified except for its names."""
        context = _context(self.options)
        context.check_hostname = False
        with contextlib.suppress(OSError), self._shaken(context, self.host) as connection:
            certificate: Any = connection.getpeercert() or {}
            return [_written(kind, str(name)) for kind, name in certificate.get("subjectAltName", ())]
        return []

    def _speaks_plain_http2(self) -> bool:
        with contextlib.suppress(OSError), self.connected() as connection:
            connection.sendall(_PREFACE)
            head = connection.recv(_FRAME_HEAD)
            return len(head) == _FRAME_HEAD and head[3] == _SETTINGS
        return False

    def connected(self) -> socket.socket:
        """Return a connection. Raises OSError."""
        return socket.create_connection((self.host, self.port), self.seconds)

    @contextlib.contextmanager
    def _shaken(self, context: ssl.SSLContext, name: str) -> Iterator[ssl.SSLSocket]:
        """Yield a connection after its handshake. Raises OSError."""
        with self.connected() as connection, context.wrap_socket(connection, server_hostname=name) as encrypted:
            yield encrypted


def _written(kind: str, name: str) -> str:
    return ipaddress.ip_address(name.strip()).compressed if kind == "IP Address" else name


def _context(options: ChannelOptions) -> ssl.SSLContext:
    """Return a context that trusts the authorities of ``options``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    authority = contents_of(options.tls_authority, "authority")
    if authority is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cadata=authority.decode("ascii", "replace"))
    return context


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # This connection only serves to find out the protocol.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
