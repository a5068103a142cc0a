"""Audit log: one line per management action, with its caller and its outcome, at every log level."""

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

# A separate level: a quieter service must not suppress the audit.
logging.getLogger(_LOGGER).setLevel(logging.INFO)
log = structlog.get_logger(_LOGGER)


@contextlib.contextmanager
def audited(action: str, model: str, caller: str = "") -> Iterator[None]:
    """Log one line when the block ends: the action, its model, its caller, and the code with which it ended.

    REQUIRES: called in the task of a call.

    Args:
        action: name of the action.
        model: the model, as the caller wrote it.
        caller: the identity on whose behalf the call is made, where that is not the identity that makes it.
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
    """Log the line of one action that ended with ``code``. The other arguments are those of :func:`audited`."""
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
    """Return ``text`` in a form that is safe in a log line: callers control its contents."""
    shown = text[:_LONGEST_TEXT]
    return shown if shown.isascii() and shown.isprintable() else ascii(shown)
