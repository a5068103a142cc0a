"""Structured logs on standard error: one JSON object per line, or coloured lines for a person at a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Final, Literal

import structlog

from serving.call.call import request_id_of_call, span_of_call
from serving.telemetry.foreign_text import shown, shown_lines

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]


_TRACEBACKS: Final = frozenset({"exception", "stack"})
_LIFE: Final = frozenset({"listening", "ready", "draining", "stopped"})


def configure_logs(service: str, level: LogLevel, log_format: LogFormat, *, worker: int | None = None) -> None:
    """Send the logs of this process, including those of libraries, to standard error. Called once, at start.

    Args:
        service: name of the service, which is added to every line.
        level: lowest severity that is logged.
        log_format: ``auto`` is ``console`` on a terminal and ``json`` anywhere else.
        worker: number of this process among the workers of its supervisor, if it has one; also added to every line.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_service(service),
        *(() if worker is None else (_of_worker(worker),)),
        with_request_id,
        _with_trace_id,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    rendering: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        # The console's own traceback would show local variables, which hold callers' texts.
        structlog.processors.format_exc_info,
    ]
    rendering += [_escaped, structlog.dev.ConsoleRenderer()] if console else [structlog.processors.JSONRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=rendering, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def _escaped(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape what a terminal would obey. Only tracebacks keep their line breaks."""
    return {
        name: value if value is None else shown_lines(value) if name in _TRACEBACKS else _shown(value)
        for name, value in event.items()
    }


def _shown(value: object) -> object:
    if isinstance(value, str):
        return shown(value)
    # The console prints the representation of all other values.
    representation = repr(value)
    return value if representation.isprintable() else shown(representation)


def with_request_id(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the request id of the call that is being served."""
    request_id = request_id_of_call()
    if request_id is not None:
        event.setdefault("request_id", request_id)
    return event


def _with_trace_id(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    span = span_of_call()
    if span is not None:
        event.setdefault("trace_id", span.trace_id)
    return event


def _of_worker(worker: int) -> structlog.typing.Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["worker"] = worker
        if event["event"] in _LIFE:
            # The supervisor logs these events once for the whole service.
            event["event"] = f"worker {event['event']}"
        return event

    return add


def _with_service(service: str) -> structlog.typing.Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    return add
