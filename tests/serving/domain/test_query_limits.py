from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.domain.errors import DocumentTooLarge, InvalidRequest
from serving.domain.prediction import Query
from serving.domain.query_limits import QueryLimits, best_labels, explained_characters, fit_in_one_answer
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


@pytest.mark.parametrize("threshold", [None, 0.0, 0.5, 1.0], ids=str)
def test_a_threshold_is_a_share(threshold: float | None) -> None:
    LIMITS.check(Query("a", "x", threshold=threshold))


@pytest.mark.parametrize("threshold", [-1e-9, 1.0000001, math.nan, math.inf, -math.inf, 50.0])
def test_what_is_no_share_is_refused_as_a_threshold(threshold: float) -> None:
    with refused(InvalidRequest, match="from 0 to 1"):
        LIMITS.check(Query("a", "x", threshold=threshold))


LARGE = QueryLimits(max_document_bytes=1 << 20, max_batch_size=4096)


def test_explanations_of_one_query_have_bounds() -> None:
    LARGE.check(Query("a", "x" * (1 << 16), explain=()))
    LARGE.check(Query("a", "x", explain=("label",) * 256))
    with refused(InvalidRequest, match="256 labels"):
        LARGE.check(Query("a", "x", explain=("label",) * 257))
    with refused(InvalidRequest, match="shorten it, or request fewer"):
        LARGE.check(Query("a", "x" * (1 << 16), explain=("label",)))


def test_explanations_and_best_labels_of_a_batch_have_bounds() -> None:
    explained = Query("a", "x" * 1024, explain=("label",))
    LARGE.check_batch([explained] * 32)
    with refused(InvalidRequest, match="split the batch"):
        LARGE.check_batch([explained] * 33)
    LARGE.check_batch([Query("a", "x" * 1024)] * 4096)
    many = Query("a", "x", k=1 << 30)
    LARGE.check_batch([many] * 64)
    with refused(InvalidRequest, match="best labels"):
        LARGE.check_batch([many] * 65)


@given(
    st.lists(
        st.builds(
            Query, st.just("a"), st.text(max_size=300), st.integers(0, 5000), explain=st.none() | st.just(("b",) * 9)
        ),
        max_size=60,
    )
)
def test_what_is_counted_fits_exactly_when_the_batch_is_taken(queries: list[Query]) -> None:
    queries = queries * 20
    fits = fit_in_one_answer(sum(map(best_labels, queries)), sum(map(explained_characters, queries)))
    try:
        LARGE.check_batch(queries)
    except InvalidRequest:
        assert not fits
    else:
        assert fits
