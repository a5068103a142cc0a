"""How a person writes which engine serves which algorithm: ``algorithm=kind://address``, separated by commas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

KINDS: Final = ("predictor",)
"""The kinds of engine, each with its module in ``frontend.backends``."""

_ROUTE: Final = re.compile(r"(?P<algorithm>[^\s=,]+)=(?P<kind>[a-z-]+)://(?P<address>[^\s,]+)")
_ADDRESS: Final = re.compile(r"(dns:///)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Engine:
    """Where an engine is and what it speaks."""

    kind: str
    address: str


def parse_routes(text: str) -> Mapping[str, Engine]:
    """Return the engine of each algorithm.

    Raises:
        ValueError: ``text`` is not written as above; the message names the part.
    """
    routes: dict[str, Engine] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _ROUTE.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is not written as algorithm=kind://host:port")
        if match["kind"] not in KINDS:
            raise ValueError(f"{part!r}: the kind of engine must be one of: {', '.join(KINDS)}")
        if not _ADDRESS.fullmatch(match["address"]):
            raise ValueError(f"{part!r}: the address must be host:port")
        if match["algorithm"] in routes:
            raise ValueError(f"{match['algorithm']!r} has two routes")
        routes[match["algorithm"]] = Engine(match["kind"], match["address"])
    if not routes:
        raise ValueError("there is no route; write algorithm=kind://host:port")
    return routes
