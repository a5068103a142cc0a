"""Addresses in gRPC's notation."""

from __future__ import annotations

from collections.abc import Sequence


def addresses_in(target: str) -> Sequence[str]:
    """Return the addresses listed in a target: ``host:port``, ``dns:///host:port``, ``ipv4:address:port,…``."""
    return target.removeprefix("ipv4:").removeprefix("ipv6:").removeprefix("dns:///").split(",")
