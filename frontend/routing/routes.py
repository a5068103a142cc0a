"""Notation of routes, which assign engines to algorithms: ``algorithm=kind://address``, separated by commas.

An address is ``host:port`` or ``dns:///name:port``, where the name may resolve to several replicas; or the ``ip:port``
of each replica, also separated by commas: ``algorithm=kind://10.0.0.2:51002,10.0.0.3:51002``.

A TorchServe is one server with two ports. The second, its management port, is 7071 on the same host by default. Another
one is written as ``algorithm=torchserve://host:7070?management=host:7071``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from intent_serving_client.addresses import InvalidAddress, check_address

PREDICTOR: Final = "predictor"
TORCHSERVE: Final = "torchserve"
OPEN_INFERENCE: Final = "open-inference"
KINDS: Final = (PREDICTOR, TORCHSERVE, OPEN_INFERENCE)
"""Kinds of engine, each with a package in ``frontend.engines``."""

_MANAGEMENT_PORT: Final = 7071

_ROUTE: Final = re.compile(r"(?P<algorithm>[^\s=,]+)=(?P<kind>[a-z-]+)://(?P<address>[^\s,?]+)(\?(?P<option>[^\s,]+))?")
_MANAGEMENT: Final = re.compile(r"management=(?P<address>[^\s,]+)")
_RESOLVER: Final = "dns:///"


@dataclass(frozen=True, slots=True)
class Engine:
    """Kind and address of an engine."""

    kind: str
    address: str
    """Address of all replicas of the engine, in gRPC's notation."""
    management: str = ""
    """Address of a TorchServe's management API."""


def parse_routes(text: str) -> Mapping[str, Engine]:
    """Return the engine of each algorithm.

    Raises:
        ValueError: ``text`` does not follow the notation of this module; the message names the faulty part.
    """
    kinds: dict[str, str] = {}
    addresses: dict[str, list[str]] = {}
    options: dict[str, str] = {}
    algorithm: str | None = None
    for part in filter(None, (part.strip() for part in text.split(","))):
        address = part
        if algorithm is None or "=" in part:
            match = _ROUTE.fullmatch(part)
            if match is None:
                raise ValueError(f"{part!r} must be written as algorithm=kind://host:port")
            if match["kind"] not in KINDS:
                raise ValueError(f"{part!r}: the kind of engine must be one of: {', '.join(KINDS)}")
            algorithm, address = match["algorithm"], match["address"]
            if algorithm in kinds:
                raise ValueError(f"{algorithm!r} has two routes; keep one")
            kinds[algorithm], addresses[algorithm], options[algorithm] = match["kind"], [], match["option"] or ""
        _check(address, part)
        addresses[algorithm].append(address)
    if not kinds:
        raise ValueError("there is no route; write algorithm=kind://host:port")
    return {name: _engine(kind, addresses[name], options[name]) for name, kind in kinds.items()}


def _engine(kind: str, addresses: Sequence[str], option: str) -> Engine:
    if kind != TORCHSERVE:
        if option:
            raise ValueError(f"{option!r}: an engine of the kind {kind} has no options")
        return Engine(kind, _target(addresses))
    if len(addresses) > 1:
        raise ValueError(f"{','.join(addresses)!r}: a model is registered with one TorchServe; write a route for each")
    match = _MANAGEMENT.fullmatch(option or f"management={addresses[0].rpartition(':')[0]}:{_MANAGEMENT_PORT}")
    if match is None:
        raise ValueError(f"{option!r} must be written as management=host:port")
    _check(match["address"], option or addresses[0], "must be written as management=host:port: ")
    return Engine(kind, addresses[0], match["address"])


def _check(address: str, written: str, fault: str = "") -> None:
    """Check an address in the part of a route that is ``written`` so. Raises ValueError, led by ``fault``."""
    try:
        check_address(address.removeprefix(_RESOLVER))
    except InvalidAddress as error:
        raise ValueError(f"{written!r}: {fault}{error}") from error


def _target(addresses: Sequence[str]) -> str:
    if len(addresses) == 1:
        return addresses[0]
    versions = {_ip_version(address) for address in addresses}
    if len(versions) > 1:
        raise ValueError(f"{','.join(addresses)!r}: several addresses must be all IPv4 or all IPv6")
    return f"ipv{versions.pop()}:{','.join(addresses)}"


def _ip_version(address: str) -> int:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).version
    except ValueError as error:
        raise ValueError(
            f"{address!r}: several addresses must be IP addresses; a name that resolves to all of them must stand alone"
        ) from error
