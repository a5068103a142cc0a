from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from frontend.management.page_tokens import name_in, token_of
from serving.domain.errors import InvalidRequest
from serving.domain.model_id import parse_model_name


@given(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_a_token_holds_any_name(name: str) -> None:
    assert name_in(token_of(name)) == parse_model_name(name)


@given(st.text(max_size=200))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    try:
        name = name_in(text)
    except InvalidRequest:
        return
    assert not name or parse_model_name(name) == name
