from __future__ import annotations

from pathlib import Path

import pytest

from tests.prose.rules import findings
from tests.prose.texts import prose_of

PYTHON = '''"""What is known of a model."""

KNOWN = 1  # nobody asks
# Of a clock's last digits nobody is refused.


def f() -> None:
    """Return the ``nobody`` of a caller.

    Whoever waits is told.
    """
    text = "nobody"
'''

MESSAGES = """
Query("nobody")
raise InvalidRequest(
    "an id stands twice; say so with force"
)
log.info("somebody left", identity="nobody")
log.error(f"{one} {two} are let in")
parser.add_argument("--name", help="name that the service is told")
match("a key stands twice")
"""

MARKDOWN = """# What nobody reads

Nobody reads `somebody`. What is it? Who comes first is served first.

```
nobody
```

| nobody | 1 |
"""


def found_in(name: str, text: str, folder: Path) -> list[int]:
    path = folder / name
    path.write_text(text)
    return sorted({line for line, _ in findings(name, prose_of(path))})


def test_comments_and_docstrings_are_prose_and_code_is_none(tmp_path: Path) -> None:
    assert found_in("some.py", PYTHON, tmp_path) == [1, 3, 4, 10]


def test_messages_are_prose_where_they_are_asked_for_and_names_are_none(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(MESSAGES)
    assert not findings("some.py", prose_of(path))
    found = findings("some.py", prose_of(path, with_messages=True))
    assert sorted({line for line, _ in found}) == [4, 6, 7, 8]


def test_paragraphs_and_tables_are_prose_and_code_and_headings_are_none(tmp_path: Path) -> None:
    assert found_in("some.md", MARKDOWN, tmp_path) == [3, 9]


@pytest.mark.parametrize(
    "text",
    [
        "Who has left is not sent.",
        "It ends. Of these, three are left.",
        "What waits is answered later.",
        "Calls are let in.",
        "A caller that comes to its deadline leaves.",
        "The the model.",
        "A key stands twice.",
    ],
)
def test_a_sentence_in_dialect_is_found(text: str) -> None:
    assert findings("some.md", f"\n{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "Skip callers that left or timed out.",
        "What does a caller see? A status.",
        "The owner of an event, who counts it, is the source.",
        "Three of the models are loaded.",
    ],
)
def test_plain_english_passes(text: str) -> None:
    assert not findings("some.md", f"\n{text}\n")
