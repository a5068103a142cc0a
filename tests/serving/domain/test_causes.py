from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from serving.domain.causes import detached, shown_cause
from serving.domain.errors import FilesUnsettled, InvalidManifest, InvalidModelFile, ServingError


class Content:
    """Stands for the bytes of a file, to which a weak reference is impossible."""


class Foreign(Exception):
    def __init__(self, content: Content) -> None:
        super().__init__("line 3")
        self.content = content


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def failing(content: Content) -> None:
    raise InvalidManifest("write it again") from Foreign(content)


@pytest.mark.usefixtures("_no_collector")
def test_a_detached_error_keeps_nothing_of_what_was_read() -> None:
    content = Content()
    kept: list[ServingError] = []
    try:
        failing(content)
    except InvalidManifest as error:
        kept.append(detached(error))
    known = weakref.ref(content)
    del content
    assert known() is None
    assert (type(kept[0]), str(kept[0])) == (InvalidManifest, "write it again")
    assert str(kept[0].__cause__) == "line 3"


def test_the_log_shows_the_same_cause_before_and_after() -> None:
    for cause in (
        LookupError("'os' 'system'"),
        UnicodeDecodeError("utf-8", b"secret", 0, 1, "bad"),
        Foreign(Content()),
    ):
        error = InvalidModelFile("save it again")
        error.__cause__ = cause
        once = detached(error)
        twice = detached(once)
        assert once.__cause__ is not None
        assert twice.__cause__ is not None
        assert shown_cause(once.__cause__) == shown_cause(twice.__cause__) == shown_cause(cause)
        assert "secret" not in shown_cause(twice.__cause__) + str(twice.__cause__)


def test_the_attributes_of_an_error_stay() -> None:
    fresh = detached(FilesUnsettled("try again", 1.5))
    assert isinstance(fresh, FilesUnsettled)
    assert fresh.retry_after == 1.5
