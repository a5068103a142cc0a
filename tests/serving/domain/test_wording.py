from __future__ import annotations

from serving.domain.wording import counted


def test_one_thing_is_singular_and_every_other_number_plural() -> None:
    assert [counted(number, "label") for number in (0, 1, 2)] == ["0 labels", "1 label", "2 labels"]
