from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import DocumentTooLarge, InvalidRequest
from serving.prediction import Query
from serving.query_limits import QueryLimits
from tests.serving.refusals import refused

LIMITS = QueryLimits(max_document_bytes=16, max_batch_size=3)


def fits(document: str) -> bool:
    try:
        LIMITS.check(Query("a", document))
    except DocumentTooLarge:
        return False
    return True


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("", True),
        ("x" * 15, True),
        ("x" * 16, True),
        ("x" * 17, False),
        ("é" * 8, True),
        ("é" * 8 + "x", False),
        ("日" * 5, True),
        ("日" * 5 + "xx", False),
        ("😀" * 4, True),
        ("😀" * 4 + "x", False),
        ("\0" * 16, True),
        ("\ud800" * 5, True),
        ("\ud800" * 6, False),
    ],
    ids=ascii,
)
def test_a_document_fits_by_its_bytes(document: str, expected: bool) -> None:
    assert fits(document) is expected


@given(st.text(max_size=24))
def test_a_document_fits_exactly_when_its_utf_8_does(document: str) -> None:
    assert fits(document) == (len(document.encode()) <= 16)


def test_the_refusal_names_the_limit_and_not_the_document() -> None:
    with refused(DocumentTooLarge, match="16 bytes") as caught:
        LIMITS.check(Query("a", "secret words" * 4))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("size", "expected"), [(0, True), (2, True), (3, True), (4, False)])
def test_a_batch_fits_by_its_queries(size: int, expected: bool) -> None:
    if expected:
        LIMITS.check_batch([Query("a", "x")] * size)
    else:
        with refused(InvalidRequest, match="3 requests"):
            LIMITS.check_batch([Query("a", "x")] * size)
