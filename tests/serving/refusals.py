"""A check that all refusals have in common: the message is written for the caller of the service."""

from __future__ import annotations

import builtins
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serving.domain import errors
from serving.domain.errors import ServingError

MOST_CHARACTERS = 600

_CLASSES = {
    name for name in (*vars(errors), *vars(builtins)) if re.search(r"[a-z](Error|Exception)$|^Invalid|^Model", name)
}
_FOREIGN = re.compile(r"Traceback|0x[0-9a-f]{4}|Errno|\bat 0x|<class|\bself\b|torch\.(?!save\b)|numpy|pydantic|zipfile")


def assert_fit_for_callers(error: ServingError) -> None:
    """Assert that the message of ``error`` names no path, no class and no text of the exception behind it."""
    message = str(error)
    assert message.isprintable()
    assert 0 < len(message) <= MOST_CHARACTERS
    assert tempfile.gettempdir() not in message
    assert not re.search(r"(^|[\s'\"])/\w", message), f"an absolute path in {message!r}"
    assert not _FOREIGN.search(message), message
    assert not _CLASSES & set(re.findall(r"\w+", message)), message
    cause = str(error.__cause__ or "")
    assert not cause or cause not in message, f"the text of {error.__cause__!r} in {message!r}"


@contextmanager
def refused(kind: type[ServingError], match: str | None = None) -> Iterator[pytest.ExceptionInfo[ServingError]]:
    """Expect a refusal of this kind whose message is fit for callers."""
    with pytest.raises(kind, match=match) as caught:
        yield caught
    assert_fit_for_callers(caught.value)
