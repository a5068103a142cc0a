from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.telemetry.foreign_text import shown, shown_lines

JOINERS = "\u200c\u200d"


@given(st.text(st.characters()))
def test_what_is_shown_can_be_printed(text: str) -> None:
    printed = shown(text)
    assert all(character.isprintable() or character in JOINERS for character in printed)
    printed.encode()


@given(st.text(st.characters()))
def test_lines_stay_lines(text: str) -> None:
    assert shown_lines(text).split("\n") == [shown(line) for line in text.split("\n")]


def test_control_sequences_and_changes_of_direction_are_escaped() -> None:
    assert shown("\x1b[2J\x9b31m a\rb\u202ec\udcff") == r"\x1b[2J\x9b31m a\rb\u202ec\udcff"


def test_text_of_all_scripts_and_joined_emoji_stay_as_they_are() -> None:
    for text in ("größe", "می‌خواهم", "余额", "👩‍💻"):
        assert shown(text) == text
