"""Addresses as people write them: a host to listen on, and ``host:port`` to connect to.

An IPv6 address is in brackets if a port follows (RFC 3986, section 3.2.2); alone, it may be written with or without
them.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_MOST_PORT: Final = 65_535
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_MOST_NAME_CHARACTERS: Final = 253
_SCHEME: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_HOST_AND_PORT: Final = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*):(?P<port>[0-9]{1,5})")
_NOTATION: Final = re.compile(r"^(dns:///|ipv4:|ipv6:)")
_SOCKETS: Final = ("unix:", "unix-abstract:")
_RULE: Final = "the address must be host:port"


class InvalidAddress(ValueError):
    """The text is not an address; the message says what to write instead."""


def address_of(host: str, port: int) -> str:
    """Return ``host:port``, with an IPv6 address in brackets."""
    host = host.strip("[]")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def addresses_in(target: str) -> list[str]:
    """Return the addresses in a target in gRPC's notation: ``host:port``, ``dns:///host:port``, ``ipv4:host:port``."""
    return _NOTATION.sub("", target).split(",")


def parse_host(text: str) -> str:
    """Return the name or address in ``text``, without brackets.

    Raises:
        InvalidAddress: ``text`` is not a host.
    """
    _check_kind(text, "write a name or an address")
    if "/" in text:
        raise InvalidAddress(f"leave out {text[text.index('/') :]!r}")
    found = _HOST_AND_PORT.fullmatch(text)
    if found is not None:
        raise InvalidAddress(f"leave out ':{found['port']}'; the port is an option of its own")
    if text == "*":
        raise InvalidAddress("write 0.0.0.0 for all IPv4 addresses of the machine, or :: for those of IPv6 too")
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not (_is_ipv6(host) or (host is text and is_name(host))):
        raise InvalidAddress("it is neither a name nor an address, such as localhost, 127.0.0.1 or ::1")
    return host


def check_address(text: str) -> None:
    """Check that ``text`` is ``host:port``.

    Raises:
        InvalidAddress: ``text`` is something else.
    """
    _check_kind(text, _RULE)
    if "/" in text:
        raise InvalidAddress(f"leave out {text[text.index('/') :]!r}; {_RULE}")
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None:
        if _is_ipv6(text.strip("[]")):
            raise InvalidAddress("write an IPv6 address in brackets, with its port: [::1]:51001")
        if text.count(":") > 1 and _is_ipv6(text.rpartition(":")[0]):
            host, _, port = text.rpartition(":")
            raise InvalidAddress(f"write an IPv6 address in brackets: [{host}]:{port}")
        raise InvalidAddress(_RULE)
    if not 0 < int(found["port"]) <= _MOST_PORT:
        raise InvalidAddress(f"the port must be from 1 to {_MOST_PORT}")
    host = found["host"]
    if not (_is_ipv6(host[1:-1]) if host.startswith("[") else is_name(host)):
        raise InvalidAddress(f"{_RULE}, and {host!r} is neither a name nor an address")


def is_name(text: str) -> bool:
    """Return whether ``text`` is written as a host name, or as an IPv4 address."""
    labels = text.removesuffix(".").split(".")
    return len(text) <= _MOST_NAME_CHARACTERS and all(map(_LABEL.fullmatch, labels))


def _check_kind(text: str, instead: str) -> None:
    if text.startswith(_SOCKETS):
        raise InvalidAddress(f"unix sockets are not supported here; {instead}")
    found = _SCHEME.match(text)
    if found is not None:
        tls = "; TLS is an option of its own" if found["scheme"].lower() in {"https", "grpcs"} else ""
        raise InvalidAddress(f"leave out {found[0]!r}; {instead}{tls}")


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
