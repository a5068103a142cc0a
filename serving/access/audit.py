"""The audit: who managed what, and what came of it, one log line each, whatever the log level is."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Final

import structlog
from grpc import StatusCode

from serving.call.call import Call, current_call
from serving.domain.errors import status_of

_LOGGER: Final = "intent.audit"
_LONGEST_TEXT: Final = 160

# A level of its own: an audit that a quieter service leaves out would be none.
logging.getLogger(_LOGGER).setLevel(logging.INFO)
log = structlog.get_logger(_LOGGER)


@contextlib.contextmanager
def audited(action: str, model: str, caller: str = "") -> Iterator[None]:
    """Write one line when the block ends: the action, its model, who asked for it, and the code it ended with.

    REQUIRES: called in the task of a call.

    Args:
        action: what is done.
        model: to which model, as it was asked for.
        caller: in whose name, where the one who calls asks for somebody else.
    """
    call = current_call()
    code = StatusCode.OK
    try:
        yield
    except BaseException as error:
        code = status_of(error).code
        raise
    finally:
        record(action, model, call, code, caller)


def record(action: str, model: str, call: Call, code: StatusCode, caller: str = "") -> None:
    """Write the line of one action that has ended with ``code``; the rest is as :func:`audited` has it."""
    log.info(
        "audit",
        action=action,
        model=_printable(model),
        identity=call.identity.name,
        caller=_printable(caller),
        request_id=call.request_id,
        code=code.name,
    )


def _printable(text: str) -> str:
    """Return what was asked for as it may stand in a line: callers write anything there."""
    shown = text[:_LONGEST_TEXT]
    return shown if shown.isascii() and shown.isprintable() else ascii(shown)
