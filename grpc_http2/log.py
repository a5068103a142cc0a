"""Logger of this library: structlog if it is configured, and ``logging`` otherwise.

A program that uses the channel need not configure structlog, whose lines would otherwise go to standard output.
"""

from __future__ import annotations

import logging
from typing import Any, Final, cast

import structlog

_PLAIN: Final[Any] = structlog.wrap_logger(
    logging.getLogger("grpc_http2"),
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
)


class _Log:
    def __getattr__(self, name: str) -> Any:
        return getattr(structlog.get_logger() if structlog.is_configured() else _PLAIN, name)


log: Final = cast("structlog.stdlib.BoundLogger", _Log())
